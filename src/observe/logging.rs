//! Logs: where `tracing` events go and how they look. Nothing is logged per request on the hot path.

use std::io::{IsTerminal, stderr};

use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::config::{LogFormat, Logging};

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level is none that tracing understands.
    #[error("LOG_LEVEL={level}: {source}")]
    Level {
        /// As given.
        level: String,
        /// Why not.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logging has begun already.
    #[error("logging was set up twice in one process")]
    Twice(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Sends the events of this process to standard error from now on.
///
/// # Errors
/// [`LoggingError`]; [`LoggingError::Twice`] leaves the first set-up as it is.
pub fn init(logging: &Logging) -> Result<(), LoggingError> {
    // https://no-color.org: set and not empty, whatever its value.
    let colours_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colours = stderr().is_terminal() && !colours_unwanted;
    tracing::subscriber::set_global_default(subscriber(logging, stderr, colours)?)?;
    Ok(())
}

/// What `logging` asks for, writing into `writer`.
fn subscriber<W>(logging: &Logging, writer: W, colours: bool) -> Result<Box<dyn Subscriber + Send + Sync>, LoggingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // `EnvFilter` could filter by the fields of spans as well, of which there are none, and brings a regex engine.
    let levels: Targets =
        logging.level.parse().map_err(|source| LoggingError::Level { level: logging.level.clone(), source })?;
    let builder = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(writer)
        .with_thread_names(true)
        // Otherwise a line that cannot be written (a full disk, a closed pipe) is complained about on the same standard
        // error, with a macro that panics there.
        .log_internal_errors(false);
    Ok(match logging.format {
        LogFormat::Human => Box::new(builder.with_ansi(colours).finish().with(levels)),
        LogFormat::Json => Box::new(builder.json().flatten_event(true).with_current_span(false).finish().with(levels)),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: &str, format: LogFormat) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let logging = Logging { level: level.to_owned(), format };
        let subscriber = subscriber(&logging, move || writer.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(port = 8080, "listening");
            tracing::debug!(target: "million_rps::worker", "batch");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_human_line_has_level_message_and_fields_without_escapes() {
        let text = logged("info", LogFormat::Human);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("INFO") && text.contains("listening port=8080"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn a_json_line_is_one_object() {
        let text = logged("info", LogFormat::Json);
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((line["level"].as_str(), line["message"].as_str()), (Some("INFO"), Some("listening")));
        assert_eq!(line["port"], 8080);
    }

    #[test]
    fn levels_by_module_are_respected() {
        assert_eq!(logged("warn", LogFormat::Human), "");
        let text = logged("warn,million_rps::worker=debug", LogFormat::Human);
        assert!(text.contains("batch") && !text.contains("listening"), "{text}");
    }

    #[test]
    fn a_second_set_up_is_refused() {
        let logging = Logging { level: "error".to_owned(), format: LogFormat::Human };
        // Another test of this process may have been first; the second call here is never the first.
        let _ = init(&logging);
        assert!(matches!(init(&logging), Err(LoggingError::Twice(_))));
    }
}
