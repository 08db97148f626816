//! News of the kernel's bridges and of the host's addresses.

use overlay_proto::ethernet::bridge::FdbNews;
use tap_bridge::{FdbWatch, HostWatch};

/// Starts to listen to what the bridges learn. Must be called within a tokio runtime, and at most
/// a moment after the first look at the whole database was asked for: nothing falls between then.
pub(crate) fn of_bridges() -> Option<FdbWatch> {
    FdbWatch::start()
        .inspect_err(|error| tracing::warn!(%error, "the bridges cannot be watched"))
        .ok()
}

/// The next piece of news of the bridges; `None` once there will be no more.
pub(crate) async fn next_news(watch: &mut Option<FdbWatch>) -> Option<FdbNews> {
    match watch.as_mut()?.next().await {
        Ok(news) => Some(news),
        Err(error) => {
            tracing::warn!(%error, "the bridges are no longer watched");
            *watch = None;
            None
        }
    }
}

/// Starts to listen to changes of the host's network. Must be called within a tokio runtime.
pub(crate) fn of_host() -> Option<HostWatch> {
    HostWatch::start()
        .inspect_err(|error| tracing::warn!(%error, "the host's addresses cannot be watched"))
        .ok()
}

/// The next change; `None` once there will be no more.
pub(crate) async fn next_change(watch: &mut Option<HostWatch>) -> Option<()> {
    match watch.as_mut()?.changed().await {
        Ok(()) => Some(()),
        Err(error) => {
            tracing::warn!(%error, "the host's addresses are no longer watched");
            *watch = None;
            None
        }
    }
}
