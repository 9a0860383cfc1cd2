//! Which todos of the list: as a query says it, and as a link to the next page repeats it.

use std::borrow::Cow;

use super::syntax::UNRESERVED;

/// Which todos of the list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter<'q> {
    /// Those of this user; `None`: of all.
    pub user: Option<User<'q>>,
    /// Those that are done, or those that are not; `None`: both.
    pub is_marked: Option<bool>,
}

/// A user, as a query names one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum User<'q> {
    /// `me`: whoever asks.
    Me,
    /// The one of this `user_id`.
    Named(Cow<'q, str>),
}

/// What stands for whoever asks.
pub(in crate::http) const ME: &str = "me";

impl Filter<'_> {
    /// Whether it leaves nothing out.
    #[inline]
    pub fn is_none(&self) -> bool {
        self.user.is_none() && self.is_marked.is_none()
    }

    /// Appends the parameters that ask for it, each with an `&` behind it, of characters that need no escaping in a URI.
    pub fn write(&self, out: &mut Vec<u8>) {
        if let Some(user) = &self.user {
            let name = match user {
                User::Me => ME,
                User::Named(name) => name,
            };
            out.extend_from_slice(b"user_id=");
            for byte in name.bytes() {
                if UNRESERVED.contains(byte) {
                    out.push(byte);
                } else {
                    const HEX: &[u8; 16] = b"0123456789ABCDEF";
                    out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                }
            }
            out.push(b'&');
        }
        match self.is_marked {
            None => {}
            Some(true) => out.extend_from_slice(b"completed=true&"),
            Some(false) => out.extend_from_slice(b"completed=false&"),
        }
    }
}
