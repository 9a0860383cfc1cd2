//! `GET /todos` and `GET /todos/count`: which part of the list is meant, and for whom.

use super::answer::Request;
use super::reads::{LocalSnapshot, SelectedRead, answer_count};
use super::reply::not_loaded;
use crate::http::Problem;
use crate::http::query::{ListQuery, count_query, list_query};
use crate::http::response::CacheControl;
use crate::http::words::filter::{Filter, User};
use crate::snapshot::Selection;

impl Request<'_> {
    /// Answers with a page of the list, or of a part of it.
    pub(super) fn list(&mut self) -> Result<(), Problem> {
        let ListQuery { limit, cursor, filter } = list_query(self.head.query)?;
        let unchanged = if filter.is_none() {
            self.shard.reads.list(cursor, limit, self.head, &mut self.reply)?
        } else {
            let snapshot = self.shard.reads.snapshot().ok_or_else(not_loaded)?;
            let (selection, cache_control) = self.selection(&filter, &snapshot)?;
            let read = SelectedRead { selection, filter: &filter, cursor, limit, cache_control };
            read.answer(&snapshot, self.head, &mut self.reply)?
        };
        self.answer_unchanged(unchanged);
        Ok(())
    }

    /// Answers with how many todos the list has, or a part of it.
    pub(super) fn count_todos(&mut self) -> Result<(), Problem> {
        let filter = count_query(self.head.query)?;
        let snapshot = self.shard.reads.snapshot().ok_or_else(not_loaded)?;
        let (selection, cache_control) = self.selection(&filter, &snapshot)?;
        let unchanged = answer_count(selection, cache_control, &snapshot, self.head, &mut self.reply)?;
        self.answer_unchanged(unchanged);
        Ok(())
    }

    /// What the filter means for whoever asks.
    fn selection(&self, filter: &Filter<'_>, snapshot: &LocalSnapshot) -> Result<(Selection, CacheControl), Problem> {
        let (owner, cache_control) = match &filter.user {
            None => (None, CacheControl::NoCache),
            Some(User::Named(user)) => (Some(snapshot.owner_number(user)), CacheControl::NoCache),
            Some(User::Me) => {
                let user = self.shard.identify(self.head, &self.state.failed_checks)?;
                (Some(snapshot.owner_number(&user)), CacheControl::Private)
            }
        };
        Ok((Selection { owner, is_marked: filter.is_marked }, cache_control))
    }
}
