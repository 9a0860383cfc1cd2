//! What an error of PostgreSQL means for the store: whether it is about a row, about the deployment, or passes.

use crate::store::StoreError;
use crate::store::postgres::rows::is_own_column;

/// A `DATABASE_URL` that is of no use, and why.
pub(super) fn refused(problem: &str) -> StoreError {
    StoreError::Fatal(format!("DATABASE_URL cannot be used: {problem}"))
}

/// What the server's answer is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// One of the rows, and it will be the same each time.
    Row,
    /// The deployment: it stays until somebody has done something. The text says what, where the server's own does not.
    Deployment(&'static str),
    /// Neither; the same may work in a moment. The text says what to do if it does not.
    Passing(&'static str),
}

/// What an SQLSTATE means, and for a missing value the column.
fn meaning(code: &str, column: Option<&str>) -> Meaning {
    match code {
        "23502" if !column.is_some_and(is_own_column) => Meaning::Deployment(
            "the table todos has a column that is not of this program and has no default: give it one (ALTER TABLE todos \
             ALTER COLUMN … SET DEFAULT …) or let it be null (… DROP NOT NULL)",
        ),
        "25006" => Meaning::Deployment(
            "the database takes no writes: it is a standby, or default_transaction_read_only is on. Let DATABASE_URL name the \
             primary (target_session_attrs=read-write finds it among several hosts), or turn the setting off",
        ),
        "53100" => Meaning::Deployment("the disk of the database is full: free some of it, or make it larger"),
        "53300" => Meaning::Deployment(
            "the server, or this role, has no connection left: raise max_connections (or ALTER ROLE … CONNECTION LIMIT), or run \
             fewer processes or lanes",
        ),
        "53400" => Meaning::Deployment("a limit of the server's settings is reached: raise it"),
        "57014" => Meaning::Passing("somebody cancelled the statement, or it ran into statement_timeout"),
        // The files of the database.
        "58P01" | "58P02" => Meaning::Deployment("a file of the server is missing or in the way: see the server's log"),
        "XX001" | "XX002" => Meaning::Deployment(
            "the files of the database are damaged: see the server's log, and restore the table or the index from a backup",
        ),
        // Statements that are prepared under a name and were lost, or changed with their table: prepared again.
        "26000" | "42P05" => Meaning::Passing(""),
        _ => meaning_of_class(code.get(..2).unwrap_or_default()),
    }
}

fn meaning_of_class(class: &str) -> Meaning {
    match class {
        // Data exceptions, integrity constraints, views' checks, program limits (a row too wide for its index); what the
        // functions of a trigger raise and run into.
        "22" | "23" | "44" | "54" | "P0" => Meaning::Row,
        "09" | "20" | "21" | "27" | "2F" | "38" | "39" => Meaning::Row,
        // A missing table or column, a missing right.
        "42" => Meaning::Deployment("the schema, or a right, is missing"),
        // Authentication, no such database, no such schema, no such role; the server's settings.
        "28" | "3D" | "3F" | "0P" | "F0" => Meaning::Deployment(""),
        // 08 connection, 25 transaction, 40 conflict, 53 resources, 55 lock, 57 operator, 58 system, XX internal: trying
        // again loses nothing.
        "03" | "08" | "0A" | "0B" | "24" | "25" | "2B" | "2D" | "34" | "3B" | "40" | "53" | "55" | "57" | "58"
        | "72" | "HV" | "XX" => Meaning::Passing(""),
        // No class of PostgreSQL: a function of the site has raised it (RAISE … USING ERRCODE).
        _ => Meaning::Row,
    }
}

/// What an error of the client library means.
pub(super) fn store_error(error: tokio_postgres::Error) -> StoreError {
    let Some(database) = error.as_db_error() else {
        // Connection refused, reset, closed; a TLS failure.
        return StoreError::Unavailable(with_source(&error));
    };
    let code = database.code().code();
    let mut text = format!("PostgreSQL: {} (SQLSTATE {code})", database.message());
    if let Some(hint) = database.hint() {
        text = format!("{text}; {hint}");
    }
    if code == "08P01" && database.message().contains("statement pooling") {
        return StoreError::Misconfigured(format!(
            "{text}: the pooler gives each statement another session, so there are no transactions. Set pool_mode = transaction \
             or session for this database in pgbouncer.ini"
        ));
    }
    let with_remedy = |remedy: &str| if remedy.is_empty() { text.clone() } else { format!("{text}: {remedy}") };
    match meaning(code, database.column()) {
        Meaning::Row => StoreError::Refused(text),
        Meaning::Deployment(remedy) => StoreError::Misconfigured(with_remedy(remedy)),
        Meaning::Passing(remedy) => StoreError::Unavailable(with_remedy(remedy)),
    }
}

/// Whether an error says that the role lacks a right.
pub(super) fn is_missing_right(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE)
}

/// The library's texts name only the step ("error connecting to server"); the reason is in the sources.
pub(super) fn with_source(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_depends_on_the_row_is_told_from_what_depends_on_the_deployment() {
        for code in ["22021", "22P02", "23505", "23514", "23P01", "23503", "44000", "54000", "P0001", "P0004", "21000"]
        {
            assert_eq!(meaning(code, None), Meaning::Row, "{code}");
        }
        // What a trigger of the site raises by a code of its own.
        for code in ["38000", "UE001", "45000", "MYAPP"] {
            assert_eq!(meaning(code, None), Meaning::Row, "{code}");
        }
        for code in ["42501", "42P01", "42703", "42P10", "428C9", "25006", "53100", "53300", "3D000", "28P01", "XX001"]
        {
            assert!(matches!(meaning(code, None), Meaning::Deployment(_)), "{code}");
        }
        for code in ["08006", "25P02", "40001", "40P01", "55P03", "57014", "57P01", "57P03", "53200", "26000", "42P05"]
        {
            assert!(matches!(meaning(code, None), Meaning::Passing(_)), "{code}");
        }
    }

    #[test]
    fn a_missing_value_is_about_the_row_only_in_a_column_of_ours() {
        // A trigger took it away.
        assert_eq!(meaning("23502", Some("title")), Meaning::Row);
        assert!(matches!(meaning("23502", Some("tenant")), Meaning::Deployment(_)));
        assert!(matches!(meaning("23502", None), Meaning::Deployment(_)));
    }
}
