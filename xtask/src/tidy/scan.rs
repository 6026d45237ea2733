//! Reads Rust source just well enough to count lines: comments and literals blanked, functions found by their braces.

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// Line of the word `fn`, from 1.
    pub(crate) line: usize,
    /// Lines from there to the closing brace.
    pub(crate) lines: usize,
}

/// The source with every byte of a comment, string or character literal blanked, line breaks kept.
pub(crate) fn blanked(source: &str) -> Vec<u8> {
    let mut blanked = source.as_bytes().to_vec();
    let mut at = 0;
    while at < blanked.len() {
        let end = literal_end(source.as_bytes(), at);
        for byte in &mut blanked[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    blanked
}

/// Where the comment or literal that starts at `at` ends; `at` itself if none does.
fn literal_end(source: &[u8], at: usize) -> usize {
    let rest = &source[at..];
    let inside_word = at > 0 && is_word(source[at - 1]);
    let length = match rest {
        [b'/', b'/', ..] => rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment(rest),
        [b'"', ..] => string(rest),
        [b'\'', ..] => character(rest),
        [b'r', b'"' | b'#', ..] if !inside_word => raw_string(rest, 1),
        [b'b' | b'c', b'r', b'"' | b'#', ..] if !inside_word => raw_string(rest, 2),
        _ => 0,
    };
    (at + length).min(source.len())
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string(rest: &[u8], prefix: usize) -> usize {
    let marks = rest[prefix..].iter().take_while(|&&byte| byte == b'#').count();
    if rest.get(prefix + marks) != Some(&b'"') {
        return 0;
    }
    let mut closing = vec![b'"'];
    closing.extend(std::iter::repeat_n(b'#', marks));
    let body = prefix + marks + 1;
    rest[body..]
        .windows(closing.len())
        .position(|window| window == closing)
        .map_or(rest.len(), |found| body + found + closing.len())
}

/// A character literal, or nothing where the quote begins a lifetime.
fn character(rest: &[u8]) -> usize {
    match rest {
        [_, b'\\', _, more @ ..] => more.iter().position(|&byte| byte == b'\'').map_or(0, |found| found + 4),
        [_, first, ..] => {
            let width = match first {
                0..0x80 => 1,
                0x80..0xe0 => 2,
                0xe0..0xf0 => 3,
                _ => 4,
            };
            if rest.get(1 + width) == Some(&b'\'') { width + 2 } else { 0 }
        }
        _ => 0,
    }
}

/// All functions with a body, inner ones too, in the order of their first lines.
pub(crate) fn functions(blanked: &[u8]) -> Vec<Function> {
    let mut functions = Vec::new();
    let (mut line, mut at) = (1, 0);
    while at < blanked.len() {
        if let Some(name) = name_after_fn(blanked, at)
            && let Some(end) = body_end(blanked, at)
        {
            let lines = 1 + count_lines(&blanked[at..end]);
            functions.push(Function { name, line, lines });
        }
        line += usize::from(blanked[at] == b'\n');
        at += 1;
    }
    functions
}

/// The name, if the word `fn` starts at `at` and a name follows (a function type has none).
fn name_after_fn(blanked: &[u8], at: usize) -> Option<String> {
    let inside_word = at > 0 && is_word(blanked[at - 1]);
    let after = blanked[at..].strip_prefix(b"fn")?;
    if inside_word || !after.first()?.is_ascii_whitespace() {
        return None;
    }
    let name: Vec<u8> =
        after.iter().copied().skip_while(u8::is_ascii_whitespace).take_while(|&byte| is_word(byte)).collect();
    (!name.is_empty()).then(|| String::from_utf8_lossy(&name).into_owned())
}

/// Where the body closes; `None` for a declaration without one.
fn body_end(blanked: &[u8], at: usize) -> Option<usize> {
    let (mut brackets, mut braces) = (0_i32, 0_i32);
    for (offset, byte) in blanked[at..].iter().enumerate() {
        match byte {
            b'(' | b'[' if braces == 0 => brackets += 1,
            b')' | b']' if braces == 0 => brackets -= 1,
            b';' if brackets == 0 && braces == 0 => return None,
            b'{' if brackets == 0 => braces += 1,
            b'}' if brackets == 0 => {
                braces -= 1;
                if braces == 0 {
                    return Some(at + offset + 1);
                }
            }
            _ => {}
        }
    }
    None
}

fn count_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte == b'\n').count()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::{blanked, functions};

    /// What is left, without the blanks.
    fn left(source: &str) -> String {
        let blanked = blanked(source);
        assert_eq!(blanked.len(), source.len(), "nothing moves");
        String::from_utf8(blanked).unwrap().replace(' ', "")
    }

    #[test]
    fn comments_and_literals_are_blanked_and_lines_kept() {
        assert_eq!(left("a // {\nb"), "a\nb");
        assert_eq!(left("a /* { /* } */ \n */ b"), "a\nb");
        assert_eq!(left("/* {"), "");
        assert_eq!(left(r#"f("}\"{", x)"#), "f(,x)");
        assert_eq!(left(r##"f(r#"}"{"#, b"{", br"{", c"{")"##), "f(,b,,c)");
        assert_eq!(left(r"['{', '\'', '\u{7b}', 'ä', '{']"), "[,,,,]");
        assert_eq!(left("fn a<'a>(b: &'a str) {}"), "fna<'a>(b:&'astr){}");
        assert_eq!(left("var\"{\" + number"), "var+number");
    }

    #[test]
    fn functions_are_counted_from_fn_to_closing_brace() {
        let source = "impl X {\n  pub fn one(&self) -> [u8; { 2 }] {\n    let f: fn(u8) = |_| { \"}\"; };\n  }\n  fn none();\n\n  fn two<'a>()\n  where\n    T: Fn(&'a str),\n  {\n    fn inner() {}\n  }\n}\n";
        let found: Vec<_> = functions(&blanked(source)).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
        assert_eq!(found, [("one".to_owned(), 2, 3), ("two".to_owned(), 7, 6), ("inner".to_owned(), 11, 1)]);
    }
}
