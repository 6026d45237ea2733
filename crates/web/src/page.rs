//! Which page of a list a request asks for. What a cursor means is the list's own business.

use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

/// The query of a list that comes in pages.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "T: FromStr<Err: Display>"))]
pub(crate) struct PageQuery<T> {
    /// Where the page begins; the list's beginning without one. An empty one is none: a client that fills a template has nothing else to
    /// put there for the first page.
    #[serde(default, deserialize_with = "unless_empty")]
    pub(crate) cursor: Option<T>,
}

fn unless_empty<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(query: D) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(query)?;
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(de::Error::custom) }
}

#[cfg(test)]
mod tests {
    use axum::extract::Query;

    use super::*;

    fn cursor<T: FromStr<Err: Display>>(query: &str) -> Result<Option<T>, String> {
        let uri = format!("/orders{query}").parse().unwrap();
        Query::<PageQuery<T>>::try_from_uri(&uri).map(|Query(page)| page.cursor).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_cursor_means_from_the_start() {
        for query in ["", "?", "?cursor=", "?cursor", "?other=1"] {
            assert_eq!(cursor::<u64>(query), Ok(None), "{query}");
            assert_eq!(cursor::<String>(query), Ok(None), "{query}");
        }
        assert_eq!(cursor("?cursor=199"), Ok(Some(199_u64)));
        assert_eq!(cursor("?cursor=or_x"), Ok(Some("or_x".to_owned())));
        for query in ["?cursor=x", "?cursor=-1", "?cursor=%20", "?cursor=1&cursor=2"] {
            assert!(cursor::<u64>(query).is_err(), "{query}");
        }
    }
}
