//! Errors of failed queries, in words about the query and not about the SQL engine.

use super::QUERY_MEMORY_BYTES_MAX;
use crate::lake::{StoreFailure, causes, store_failure};
use adtally_model::Error;
use datafusion::common::{DataFusionError, SchemaError};
use parquet::errors::ParquetError;

/// Advice of the engine for its developers, by its start and end. It is useless to the user.
const ADVICE: [(&str, &str); 4] = [
    ("\nThis issue was likely caused by a bug in DataFusion", "github.com/apache/datafusion/issues"),
    (" or disable the datafusion.", " configuration"),
    (" or set datafusion.", "'"),
    ("\n\nbacktrace:", ""),
];

/// The engine's wordings for a converted number that does not fit the type.
const OVERFLOWS: [&str; 4] = ["Can't cast value", "is out of range", "Overflow happened", "overflow"];

/// The kind of an error, and its text without the library's wrappings.
pub fn query_error(error: DataFusionError) -> Error {
    match store_failure(&error) {
        Some(StoreFailure::Missing(path)) => {
            return Error::corrupt(format!("the lake file {path} is missing: restore it from a backup"))
                .because(plain(&error));
        }
        Some(StoreFailure::Passing) => {
            return Error::transient("the query could not read the lake: check the disk or the object store")
                .because(plain(&error));
        }
        None => {}
    }
    if causes(&error).any(|cause| cause.is::<ParquetError>()) {
        return Error::corrupt("a lake file is damaged: `adtally verify` names it; restore it from a backup")
            .because(plain(&error));
    }
    let root = error.find_root();
    match root {
        DataFusionError::Internal(_) | DataFusionError::ExecutionJoin(_) => {
            Error::internal("the query triggered a defect of the SQL engine: try to write it differently")
                .because(plain(root))
        }
        DataFusionError::ResourcesExhausted(_) => Error::user(format!(
            "the query needs more than {} MiB: ask for fewer rows or groups, or export the tables",
            QUERY_MEMORY_BYTES_MAX >> 20
        )),
        DataFusionError::ArrowError(cause, _) if OVERFLOWS.iter().any(|said| cause.to_string().contains(said)) => {
            Error::user(format!(
                "the query is wrong: a number does not fit its type: cast to DECIMAL(38, 0) or DOUBLE before you \
                 calculate with large numbers ({})",
                plain(root)
            ))
        }
        _ => Error::user(format!("the query is wrong: {}", plain(root))),
    }
}

/// The engine's message, without its advice for developers.
fn plain(error: &DataFusionError) -> String {
    let text = match error {
        DataFusionError::SchemaError(cause, _) if matches!(**cause, SchemaError::FieldNotFound { .. }) => {
            format!("Schema error: {cause}")
        }
        _ => error.strip_backtrace(),
    };
    without_advice(&text)
}

fn without_advice(text: &str) -> String {
    let mut text = text.to_owned();
    for (first, last) in ADVICE {
        while let Some(begin) = text.find(first) {
            let end = match (last, text[begin + first.len()..].find(last)) {
                ("", _) | (_, None) => text.len(),
                (_, Some(at)) => begin + first.len() + at + last.len(),
            };
            text.replace_range(begin..end, "");
        }
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use adtally_model::ErrorKind;

    #[test]
    fn advice_to_those_who_build_the_engine_in_is_left_out() {
        let defect = query_error(DataFusionError::Internal("no index".into()));
        assert_eq!(defect.kind(), ErrorKind::Internal);
        assert!(!defect.report().contains("filing") && defect.report().contains("no index"), "{}", defect.report());
        let text = "No field named a.\nYou can use double quotes to refer to the \"A\" column or disable the \
                    datafusion.sql_parser.enable_ident_normalization configuration.\nValid fields are b.";
        let kept = "No field named a.\nYou can use double quotes to refer to the \"A\" column.\nValid fields are b.";
        assert_eq!(without_advice(text), kept);
    }
}
