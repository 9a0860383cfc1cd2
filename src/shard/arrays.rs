//! `POST /todos` with an array: several creates that are checked, refused and answered together.

use std::rc::Rc;

use super::answer::Request;
use super::outcome::refused;
use super::writes::in_flight::PendingWrite;
use crate::http::Problem;
use crate::http::content::check_json;
use crate::http::idempotency_key::idempotency_key;
use crate::todo::{Command, NewTodo, TodoId};

impl Request<'_> {
    /// Hands a create for each todo of the array to the producer: for all of them, or for none. What the log makes of them is one
    /// answer.
    pub(super) fn create_all(&mut self, body: &mut [u8]) -> Result<(), Problem> {
        let shard = self.shard;
        let user = shard.authenticate(self.head, &self.state.failed_checks)?;
        shard.writes.check_rate(&user)?;
        check_json(self.head)?;
        let now = shard.clock.moment();
        let settings = &shard.settings;
        let mut parser = shard.parser.borrow_mut();
        let todos = NewTodo::all_from_json(body, settings.text_limits, settings.array_limit(), &mut parser);
        // Each write counts, whatever becomes of it; what is no array of todos counts as one.
        shard.writes.take_all_from_rate(&user, todos.as_ref().map_or(1, Vec::len) as u32)?;
        let todos = todos?;
        let key = self.head.idempotency_key().map(idempotency_key).transpose()?;
        let writes = &shard.writes;
        let ids = (0..todos.len() as u32).map(|index| match &key {
            // Sent again, they are the same todos; a create of one that is there changes nothing.
            Some(key) => writes.id_of_key_in_array(&user, key, index),
            None => Ok(writes.new_id(now.timestamp)),
        });
        let ids: Box<[TodoId]> = ids.collect::<Result<_, Problem>>()?;
        writes.check_room_for_creates(&shard.reads, &ids, &user)?;
        let commands = ids.iter().zip(todos).map(|(id, todo)| Command {
            id: *id,
            user_id: (&*user).into(),
            requested_at: now.timestamp,
            action: todo.into(),
        });
        let pending = || {
            let write = PendingWrite::of_array(ids.clone(), self.reply.connection(), Rc::clone(self.state));
            write.waiting_until(self.wait_until()).granting(self.reply.grant())
        };
        let pending = writes.submit_all(commands, now, pending).map_err(refused)?;
        self.reply.pending(pending);
        Ok(())
    }
}
