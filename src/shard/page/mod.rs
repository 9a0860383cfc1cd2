//! The answers to what people ask for: the page at `/`, the documents of the contract, and a token for whoever sits at this
//! machine.

mod minter;

use std::sync::Arc;

use super::answer::Request;
use crate::contract::Contract;
use crate::http::conditional::{Condition, evaluate_encoded};
use crate::http::response::CacheControl;
use crate::http::{Problem, ResponseHead, Status};
use crate::static_document::StaticDocument;

pub use self::minter::Minter;

/// What the shards serve the page with.
#[derive(Debug, Clone)]
pub struct Desk {
    /// The page.
    pub page: Arc<StaticDocument>,
    /// The contract as documents.
    pub contract: Arc<Contract>,
    /// Who makes tokens for the page, where that is allowed.
    pub minter: Option<Arc<Minter>>,
    /// The members of a token that lead to its user, from the outermost on.
    pub user_claim: Arc<[String]>,
}

impl Request<'_> {
    /// Answers with the page.
    pub(super) fn answer_page(&mut self) -> Result<(), Problem> {
        let page = Arc::clone(&self.shard.settings.desk.page);
        self.answer_static(&page)
    }

    /// Answers with a document of the contract, which `of` finds.
    pub(super) fn answer_contract(&mut self, of: impl FnOnce(&Contract) -> &StaticDocument) -> Result<(), Problem> {
        let contract = Arc::clone(&self.shard.settings.desk.contract);
        self.answer_static(of(&contract))
    }

    fn answer_static(&mut self, document: &StaticDocument) -> Result<(), Problem> {
        let coding = document.coding(self.shard.reads.coding(self.head));
        let (condition, named) = evaluate_encoded(self.head, document.tag, coding);
        let connection = self.reply.connection();
        let end = |head: ResponseHead<'_>| {
            let head = head.cache_control(CacheControl::NoCache).vary_accept_encoding();
            let head = match &document.policy {
                Some(policy) => head.document_policy(policy),
                None => head.as_typed(),
            };
            head.connection(connection).end();
        };
        match condition {
            Condition::Failed => return Err(Problem::precondition_failed()),
            Condition::NotModified => {
                self.reply.head(Status::NotModified, |head| end(head.etag_in(document.tag, named)));
                return Ok(());
            }
            Condition::Holds => {}
        }
        let body = document.body(coding);
        self.reply.head(Status::Ok, |head| {
            let head = head.content_type(document.content_type).content_length(body.len() as u64);
            end(head.content_encoding(coding).etag_in(document.tag, coding));
        });
        self.reply.bytes(body);
        Ok(())
    }
}
