//! The catalogue of words: four languages compiled in, and what a shop says differently or adds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The language that has every word, and that the others fall back to.
const ENGLISH: &str = "en";
/// The catalogue with every word, as a file.
pub const ENGLISH_WORDS: &str = include_str!("../words/en.toml");
const COMPILED_IN: [(&str, &str); 4] = [
    ("ar", include_str!("../words/ar.toml")),
    ("de", include_str!("../words/de.toml")),
    (ENGLISH, ENGLISH_WORDS),
    ("zh", include_str!("../words/zh.toml")),
];
/// Characters of one text; pages have to stay small.
const TEXT_CHARACTERS_MAX: usize = 400;
/// Bytes of a shop's file.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Why a shop's words cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WordsError {
    /// The folder or a file.
    #[error("pages.words_folder: {path}: {source}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file.
    #[error("{path}: {reason}", path = path.display())]
    Invalid {
        /// Which.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// The configuration.
    #[error("pages.language: there are no words for {0:?}; there are: {1}")]
    Unknown(String, String),
}

/// All words of one language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Language {
    /// Its tag, as in `lang`.
    pub tag: String,
    /// What it calls itself.
    pub name: String,
    /// `ltr` or `rtl`.
    pub direction: String,
    page: BTreeMap<String, String>,
    said: BTreeMap<String, String>,
    check: BTreeMap<String, String>,
}

/// A catalogue's file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Option<String>,
    direction: Option<String>,
    #[serde(default)]
    page: BTreeMap<String, String>,
    #[serde(default)]
    said: BTreeMap<String, String>,
    #[serde(default)]
    check: BTreeMap<String, String>,
}

impl Language {
    /// A word of a page.
    pub fn page(&self, word: &str) -> &str {
        self.page.get(word).map_or("", String::as_str)
    }

    /// A word that a script says.
    pub fn said(&self, word: &str) -> &str {
        self.said.get(word).map_or("", String::as_str)
    }

    /// The words of the human check.
    pub(crate) fn check(&self) -> &BTreeMap<String, String> {
        &self.check
    }

    /// What a script has to know to speak.
    pub(crate) fn spoken(&self) -> &BTreeMap<String, String> {
        &self.said
    }

    /// This language as a file has it, and where the file says nothing, as `self` does.
    fn with(&self, tag: &str, file: File) -> Result<Self, String> {
        let mut language = Self { tag: tag.to_owned(), ..self.clone() };
        let new = tag != self.tag;
        language.name =
            file.name.or((!new).then(|| self.name.clone())).ok_or("name: say what the language calls itself")?;
        language.direction =
            file.direction.unwrap_or_else(|| if new { "ltr".to_owned() } else { self.direction.clone() });
        if !["ltr", "rtl"].contains(&language.direction.as_str()) {
            return Err("direction: write \"ltr\" or \"rtl\"".to_owned());
        }
        merge("page", &mut language.page, file.page)?;
        merge("said", &mut language.said, file.said)?;
        merge("check", &mut language.check, file.check)?;
        Ok(language)
    }
}

fn merge(table: &str, known: &mut BTreeMap<String, String>, new: BTreeMap<String, String>) -> Result<(), String> {
    for (word, text) in new {
        let place =
            known.get_mut(&word).ok_or_else(|| format!("[{table}] {word}: there is no such word; remove it"))?;
        if text.trim().is_empty() || text.chars().count() > TEXT_CHARACTERS_MAX || text.chars().any(char::is_control) {
            return Err(format!("[{table}] {word}: write 1 to {TEXT_CHARACTERS_MAX} characters on one line"));
        }
        // Without its time "left to pay" would say nothing.
        if place.contains("{time}") && !text.contains("{time}") {
            return Err(format!("[{table}] {word}: keep {{time}}, which stands for a time"));
        }
        *place = text;
    }
    Ok(())
}

/// The languages of a deployment.
#[derive(Clone, Debug)]
pub struct Words {
    languages: BTreeMap<String, Language>,
    default: String,
}

impl Words {
    /// The compiled-in languages, with what the files `TAG.toml` of a shop's folder say differently or add. `default` is for whoever
    /// asks for none of them.
    pub fn load(folder: Option<&Path>, default: &str) -> Result<Self, WordsError> {
        let mut words = Self { languages: compiled_in(), default: default.to_owned() };
        if let Some(folder) = folder {
            words.add_folder(folder)?;
        }
        if !words.languages.contains_key(default) {
            let known: Vec<_> = words.languages.keys().cloned().collect();
            return Err(WordsError::Unknown(default.to_owned(), known.join(", ")));
        }
        Ok(words)
    }

    fn add_folder(&mut self, folder: &Path) -> Result<(), WordsError> {
        let failed = |path: &Path, source| WordsError::Read { path: path.to_owned(), source };
        let entries = std::fs::read_dir(folder).map_err(|source| failed(folder, source))?;
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(|source| failed(folder, source))?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                paths.push(path);
            }
        }
        // English first: a new language says in English what it leaves out, in the shop's English.
        paths.sort_by_key(|path| (path.file_stem().is_none_or(|stem| stem != ENGLISH), path.clone()));
        for path in paths {
            let length = std::fs::metadata(&path).map_err(|source| failed(&path, source))?.len();
            let invalid = |reason: String| WordsError::Invalid { path: path.clone(), reason };
            if length > FILE_BYTES_MAX {
                return Err(invalid(format!("it is larger than {FILE_BYTES_MAX} bytes")));
            }
            let text = std::fs::read_to_string(&path).map_err(|source| failed(&path, source))?;
            let tag = path.file_stem().and_then(|stem| stem.to_str()).filter(|tag| is_tag(tag));
            let tag = tag.ok_or_else(|| invalid("name the file after its language, as in pt-BR.toml".to_owned()))?;
            let file: File = toml::from_str(&text).map_err(|error| invalid(error.to_string()))?;
            let base = &self.languages[if self.languages.contains_key(tag) { tag } else { ENGLISH }];
            let language = base.with(tag, file).map_err(invalid)?;
            self.languages.insert(tag.to_owned(), language);
        }
        Ok(())
    }

    /// Tags and names, for those who look for theirs.
    pub fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.languages.values().map(|language| (language.tag.as_str(), language.name.as_str()))
    }

    /// All of them, the default first.
    pub fn all(&self) -> impl Iterator<Item = &Language> {
        let others = self.languages.values().filter(|language| language.tag != self.default);
        std::iter::once(&self.languages[&self.default]).chain(others)
    }

    /// The language that was asked for by name; else the one that `Accept-Language` prefers (RFC 9110, 12.5.4; a language stands for
    /// its regions); else the default.
    pub fn choose(&self, asked: Option<&str>, accept_language: Option<&str>) -> &Language {
        if let Some(language) = asked.and_then(|tag| self.find(tag)) {
            return language;
        }
        let mut wanted: Vec<(f32, &str)> = accept_language
            .unwrap_or_default()
            .split(',')
            .take(32)
            .map(|entry| {
                let (tag, quality) = entry.split_once(";q=").unwrap_or((entry, "1"));
                (quality.trim().parse().unwrap_or(0.0), tag.trim())
            })
            .filter(|(quality, _)| *quality > 0.0)
            .collect();
        // Stable: of two that are wanted alike, the first.
        wanted.sort_by(|one, two| two.0.total_cmp(&one.0));
        let first = wanted.iter().find_map(|(_, tag)| self.find(tag));
        first.unwrap_or(&self.languages[&self.default])
    }

    fn find(&self, tag: &str) -> Option<&Language> {
        let exact = self.languages.values().find(|language| language.tag.eq_ignore_ascii_case(tag));
        exact.or_else(|| {
            let primary = tag.split('-').next()?;
            self.languages.values().find(|language| language.tag.eq_ignore_ascii_case(primary))
        })
    }
}

fn compiled_in() -> BTreeMap<String, Language> {
    let parse = |text: &str| -> File { toml::from_str(text).expect("the words compiled in can be read") };
    let english = COMPILED_IN.iter().find(|(tag, _)| *tag == ENGLISH).map_or("", |(_, text)| text);
    let file = parse(english);
    let english = Language {
        tag: ENGLISH.to_owned(),
        name: file.name.unwrap_or_default(),
        direction: file.direction.unwrap_or_default(),
        page: file.page,
        said: file.said,
        check: file.check,
    };
    let language = |(tag, text): &(&str, &str)| {
        let language = english.with(tag, parse(text)).expect("the words compiled in are words");
        (language.tag.clone(), language)
    };
    COMPILED_IN.iter().map(language).collect()
}

/// Letters, digits and hyphens, as in `pt-BR`.
fn is_tag(tag: &str) -> bool {
    (2..=35).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_has_every_word_of_its_own() {
        let languages = compiled_in();
        let english = &languages[ENGLISH];
        for (tag, text) in COMPILED_IN {
            let file: File = toml::from_str(text).unwrap();
            assert_eq!(file.page.keys().collect::<Vec<_>>(), english.page.keys().collect::<Vec<_>>(), "{tag}");
            assert_eq!(file.said.keys().collect::<Vec<_>>(), english.said.keys().collect::<Vec<_>>(), "{tag}");
            assert_eq!(file.check.keys().collect::<Vec<_>>(), english.check.keys().collect::<Vec<_>>(), "{tag}");
        }
        assert_eq!(languages["ar"].direction, "rtl");
    }

    #[test]
    fn the_language_is_the_one_that_the_reader_wants() {
        let words = Words::load(None, "en").unwrap();
        let table = [
            (None, Some("de-AT,de;q=0.9,en;q=0.5"), "de"),
            (None, Some("fr, zh-Hans-CN;q=0.3, ar;q=0.7"), "ar"),
            (Some("zh"), Some("de"), "zh"),
            (Some("xx"), Some("de"), "de"),
            (Some("ZH-tw"), None, "zh"),
            (None, Some("fr"), "en"),
            (None, Some("de;q=0, *;q=0.5"), "en"),
            (None, Some(";;q=x,,"), "en"),
            (None, None, "en"),
        ];
        for (asked, accepted, chosen) in table {
            assert_eq!(words.choose(asked, accepted).tag, chosen, "{asked:?} {accepted:?}");
        }
    }

    #[test]
    fn a_shop_changes_words_and_adds_languages() {
        let folder = std::env::temp_dir().join(format!("doorbuster-words-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("en.toml"), "[page]\nbutton = \"Mine!\"\n").unwrap();
        std::fs::write(folder.join("fr.toml"), "name = \"Français\"\n[said]\nstate_gone = \"Épuisé.\"\n").unwrap();
        std::fs::write(folder.join("README"), "not words").unwrap();
        let words = Words::load(Some(&folder), "fr").unwrap();
        assert_eq!(words.choose(Some("en"), None).page("button"), "Mine!");
        let french = words.choose(None, None);
        assert_eq!((french.said("state_gone"), french.page("button")), ("Épuisé.", "Mine!"));
        let refused = [
            ("[page]\nbotton = \"x\"", "no such word"),
            ("[page]\nbutton = \" \"", "1 to 400"),
            ("[said]\nstate_yours = \"Yours\"", "keep {time}"),
            ("direction = \"up\"", "rtl"),
            ("button = \"x\"", "unknown field"),
        ];
        for (text, reason) in refused {
            std::fs::write(folder.join("en.toml"), text).unwrap();
            let error = Words::load(Some(&folder), "en").unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("en.toml"), "{error}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(Words::load(None, "tlh").unwrap_err().to_string().contains("ar, de, en, zh"));
    }
}
