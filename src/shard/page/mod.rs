//! The answers to what a browser asks for: the page at `/`, and a token for whoever sits at this machine.

mod minter;

use std::sync::Arc;

use super::answer::Request;
use crate::http::conditional::{Condition, evaluate_encoded};
use crate::http::response::{CacheControl, ContentType};
use crate::http::{Problem, Status};
use crate::page::Page;

pub use self::minter::Minter;

/// What the shards serve the page with.
#[derive(Debug, Clone)]
pub struct Desk {
    /// The page.
    pub page: Arc<Page>,
    /// Who makes tokens for the page, where that is allowed.
    pub minter: Option<Arc<Minter>>,
    /// The members of a token that lead to its user, from the outermost on.
    pub user_claim: Arc<[String]>,
}

impl Request<'_> {
    /// Answers with the page.
    pub(super) fn answer_page(&mut self) -> Result<(), Problem> {
        let page = Arc::clone(&self.shard.settings.desk.page);
        let coding = self.shard.reads.coding(self.head);
        let (condition, named) = evaluate_encoded(self.head, page.tag, coding);
        let connection = self.reply.connection();
        match condition {
            Condition::Failed => return Err(Problem::precondition_failed()),
            Condition::NotModified => {
                self.reply.head(Status::NotModified, |head| {
                    head.etag_in(page.tag, named)
                        .cache_control(CacheControl::NoCache)
                        .vary_accept_encoding()
                        .document_policy(&page.policy)
                        .connection(connection)
                        .end();
                });
                return Ok(());
            }
            Condition::Holds => {}
        }
        let body = page.body(coding);
        self.reply.head(Status::Ok, |head| {
            head.content_type(ContentType::Html)
                .content_length(body.len() as u64)
                .content_encoding(coding)
                .etag_in(page.tag, coding)
                .cache_control(CacheControl::NoCache)
                .vary_accept_encoding()
                .document_policy(&page.policy)
                .connection(connection)
                .end();
        });
        self.reply.bytes(body);
        Ok(())
    }
}
