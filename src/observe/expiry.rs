//! Why connections are closed, or told to hurry, before they have come to their end.

/// What has lasted too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// No request came.
    Idle,
    /// A request's head did not end.
    Head,
    /// A request's body did not end.
    Body,
    /// The client took nothing of an answer.
    Stalled,
    /// The client took less of an answer than the minimum.
    Slow,
    /// The client held an old list, was among the slowest that do, and all of them held too much.
    OldList,
    /// Others were to be read behind the last answer.
    Linger,
}

impl Expiry {
    /// How many there are.
    pub const COUNT: usize = Expiry::ALL.len();
    /// All of them, in the order of their numbers.
    pub const ALL: [Expiry; 7] =
        [Expiry::Idle, Expiry::Head, Expiry::Body, Expiry::Stalled, Expiry::Slow, Expiry::OldList, Expiry::Linger];

    /// Its name in the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Expiry::Idle => "idle",
            Expiry::Head => "head",
            Expiry::Body => "body",
            Expiry::Stalled => "write_stalled",
            Expiry::Slow => "write_slow",
            Expiry::OldList => "old_list",
            Expiry::Linger => "linger",
        }
    }
}
