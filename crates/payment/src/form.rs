//! `application/x-www-form-urlencoded`: what goes to a provider, and what a browser sends from the sandbox's page.

use std::fmt::Write as _;

/// Names and values in one line; everything but letters, digits and `-._~` is written as bytes in hex.
pub(crate) fn encode<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut line = String::new();
    for (name, value) in fields {
        if !line.is_empty() {
            line.push('&');
        }
        escape(name, &mut line);
        line.push('=');
        escape(value, &mut line);
    }
    line
}

fn escape(text: &str, line: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            line.push(char::from(byte));
        } else {
            write!(line, "%{byte:02X}").expect("a string takes every text");
        }
    }
}

/// The value of that name in a browser's form; `None` if it is not there. For numbers and plain words, which need no escapes.
pub(crate) fn plain_field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split('&').find_map(|field| field.split_once('=').filter(|(found, _)| *found == name)).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::{encode, plain_field};

    #[test]
    fn fields_are_written_so_that_nothing_breaks_out_of_them() {
        assert_eq!(encode([]), "");
        let line = encode([("metadata[a]", "b&c=d e\u{e4}\r\n"), ("amount", "1500")]);
        assert_eq!(line, "metadata%5Ba%5D=b%26c%3Dd%20e%C3%A4%0D%0A&amount=1500");
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        assert_eq!(plain_field("a=1&seconds=5", "seconds"), Some("5"));
        assert_eq!(plain_field("xseconds=5&seconds", "seconds"), None);
        assert_eq!(plain_field("seconds=", "seconds"), Some(""));
    }
}
