//! The contract as documents: OpenAPI at `/openapi.json`, the same for people at `/docs`, what each type of problem means below
//! `/docs/problems/`, and the table in README. All of it is made of the table of routes; pure.

mod html;
mod openapi;
mod pages;
mod readme;
mod responses;
mod schemas;

pub use self::openapi::openapi;
pub use self::readme::markdown;
use crate::config::Config;
use crate::http::ProblemKind;
use crate::http::response::ContentType;
use crate::limits::{ARRAY_MAX_TODOS, BODY_MAX_BYTES};
use crate::static_document::StaticDocument;
use crate::todo::TextLimits;

/// What is set of what the documents tell.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Longest texts of a request.
    pub texts: TextLimits,
    /// Longest body of a request.
    pub body_max_bytes: usize,
    /// Most todos of an array.
    pub array_max_todos: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { texts: TextLimits::default(), body_max_bytes: BODY_MAX_BYTES, array_max_todos: ARRAY_MAX_TODOS }
    }
}

impl Bounds {
    /// What these settings say.
    pub fn of(config: &Config) -> Bounds {
        Bounds {
            texts: config.write.text_limits,
            body_max_bytes: config.http.body_max_bytes,
            array_max_todos: config.write.array_max_todos,
        }
    }
}

/// The documents, ready to be sent.
#[derive(Debug)]
pub struct Contract {
    openapi: StaticDocument,
    docs: StaticDocument,
    problems: StaticDocument,
    /// In the order of [`ProblemKind::ALL`].
    each_problem: Vec<StaticDocument>,
}

impl Contract {
    /// Writes and compresses them.
    pub fn new(bounds: &Bounds) -> Contract {
        let html = |text| StaticDocument::new(text, ContentType::Html, Some(html::policy()));
        Contract {
            openapi: StaticDocument::new(openapi(bounds).to_string(), ContentType::Json, None),
            docs: html(pages::docs(bounds)),
            problems: html(pages::problems()),
            each_problem: ProblemKind::ALL.iter().map(|kind| html(pages::problem(*kind))).collect(),
        }
    }

    /// The document of OpenAPI.
    pub fn openapi(&self) -> &StaticDocument {
        &self.openapi
    }

    /// The page of the contract.
    pub fn docs(&self) -> &StaticDocument {
        &self.docs
    }

    /// The page of all types of problems.
    pub fn problems(&self) -> &StaticDocument {
        &self.problems
    }

    /// The page of one.
    pub fn problem(&self, kind: ProblemKind) -> &StaticDocument {
        &self.each_problem[kind as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Coding;

    #[test]
    fn each_kind_of_problem_has_its_page() {
        let contract = Contract::new(&Bounds::default());
        for kind in ProblemKind::ALL {
            let page = std::str::from_utf8(contract.problem(*kind).body(Coding::Identity)).expect("UTF-8");
            assert!(page.contains(&format!("<h1>{}</h1>", kind.title())), "{page}");
        }
    }
}
