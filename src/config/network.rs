//! Whether what a client has compressed on its way is: `network-compression=`.

/// Whether blocks of files are compressed on their way to clients that ask for LZ4.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NetworkCompression {
    /// While that brings more of a file to the client in the same time.
    #[default]
    Auto,
    /// Whatever the network.
    Always,
    /// They are put into frames as they are.
    Never,
}

impl NetworkCompression {
    /// The values of the option.
    pub(super) const NAMES: [&str; 3] = ["auto", "always", "never"];

    /// What this value of the option means.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "auto" => Some(Self::Auto),
            "always" => Some(Self::Always),
            "never" => Some(Self::Never),
            _ => None,
        }
    }
}
