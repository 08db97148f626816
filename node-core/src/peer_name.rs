//! What one peer is called.

/// The names of one peer.
#[derive(Debug, Clone, Default)]
pub(crate) struct PeerName {
    /// In its certificate.
    pub(crate) signed: Option<String>,
    /// In its card, checked to be a legal name.
    pub(crate) said: Option<String>,
}

impl PeerName {
    /// Its card says this; anything but a legal name is as good as none.
    pub(crate) fn say(&mut self, said: &str) {
        let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
        let is_name = (1..=63).contains(&said.len()) && said.bytes().all(legal);
        self.said = is_name.then(|| said.to_owned());
    }
}
