//! Carries out what a user asks for that changes the host ([`operations`](node_core::node::users::operations)).

use anyhow::{Result, anyhow};
use overlay_proto::membership::Membership;
use tokio::sync::mpsc;

use crate::cli::{attach_now, detach_all, detach_now};
use crate::state::StateDir;
use node_core::node::switchboard::answers::Answer;
use node_core::node::users::operations::Operation;

/// Begins `operation`; [`Answer::Operated`] says what came of it, also when it broke off.
pub(crate) fn begin(
    state: StateDir,
    membership: Membership,
    operation: Operation,
    answers: mpsc::Sender<Answer>,
) {
    tokio::spawn(async move {
        let done = tokio::spawn(change(state, membership, operation)).await;
        let done = done.unwrap_or_else(|error| Err(anyhow!("the change broke off: {error}")));
        // The slow path may have ended.
        let _ = answers.send(Answer::Operated(done)).await;
    });
}

async fn change(state: StateDir, membership: Membership, operation: Operation) -> Result<String> {
    match operation {
        Operation::Attach(request) => attach_now(&state, &membership, &request).await,
        Operation::Detach(request) => detach_now(&state, &request).await,
        Operation::Leave => detach_all(&state).await.map(|()| String::new()),
    }
}
