//! What an operation may answer, by status: what is fine and what is wrong with that status together.

use crate::http::route::{
    ACCEPT_ENCODING, ANY_REQUEST, Answer, CACHE_CONTROL, CHALLENGE, CHALLENGE_AT_TIMES, Field, Operation, RETRY_AFTER,
    RETRY_AFTER_AT_TIMES,
};
use crate::http::{ProblemKind, Status};

/// All that an operation may answer with one status.
pub struct Response {
    pub status: Status,
    pub answer: Option<&'static Answer>,
    pub problems: Vec<ProblemKind>,
}

/// What an operation may answer, by ascending status.
pub fn responses(operation: &'static Operation) -> Vec<Response> {
    by_status(operation.answers, operation.problems)
}

/// What these answers and problems come to, with what any request may be answered.
pub fn by_status(answers: &'static [Answer], problems: &[ProblemKind]) -> Vec<Response> {
    let kinds =
        || ProblemKind::ALL.iter().copied().filter(|kind| problems.contains(kind) || ANY_REQUEST.contains(kind));
    let mut statuses: Vec<Status> = answers.iter().map(|answer| answer.status).collect();
    statuses.extend(kinds().map(ProblemKind::status));
    statuses.sort_by_key(|status| status.code());
    statuses.dedup();
    let of_status = |status| Response {
        status,
        answer: answers.iter().find(|answer| answer.status == status),
        problems: kinds().filter(|kind| kind.status() == status).collect(),
    };
    statuses.into_iter().map(of_status).collect()
}

impl Response {
    /// The fields that it has.
    pub fn fields(&self) -> Vec<&'static Field> {
        let mut fields = vec![&CACHE_CONTROL];
        fields.extend(self.answer.into_iter().flat_map(|answer| answer.fields.iter().copied()));
        let is_common = self.answer.is_some() || self.problems.contains(&ProblemKind::TooManyTodos);
        let of_problems = match self.status {
            Status::Unauthorized => Some(&CHALLENGE),
            Status::Forbidden => Some(&CHALLENGE_AT_TIMES),
            Status::UnsupportedMediaType => Some(&ACCEPT_ENCODING),
            Status::TooManyRequests | Status::ServiceUnavailable if is_common => Some(&RETRY_AFTER_AT_TIMES),
            Status::TooManyRequests | Status::ServiceUnavailable => Some(&RETRY_AFTER),
            _ => None,
        };
        // Where the answer itself has the field always, it is the same one.
        fields.extend(of_problems.filter(|field| !fields.iter().any(|there| there.name == field.name)));
        fields
    }

    /// When it comes.
    pub fn when(&self) -> String {
        let mut when: Vec<String> = self.answer.iter().map(|answer| answer.when.to_owned()).collect();
        when.extend(self.problems.iter().map(|kind| format!("{}.", kind.title())));
        when.join(" ")
    }
}
