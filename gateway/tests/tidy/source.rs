//! The tree as the rules see it: files, and in Rust files code, comments and literals apart.

use std::fs;
use std::path::{Path, PathBuf};

/// One broken rule at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) what: String,
}

/// A text file of the repository.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Relative to the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    pub(crate) fn finding(&self, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, what: what.into() }
    }

    /// The text with everything but `part` blanked out; lines keep their numbers, and delimiters of literals stay code.
    pub(crate) fn only(&self, part: Part) -> String {
        split(&self.text)
            .into_iter()
            .map(|(c, p)| if p == part || c == '\n' { c } else { ' ' })
            .collect()
    }

    /// Identifiers and keywords of the code, with their lines.
    pub(crate) fn words(&self) -> Vec<(usize, String)> {
        let mut words = Vec::new();
        for (index, line) in self.only(Part::Code).lines().enumerate() {
            words.extend(
                line.split(|c: char| !is_word(c))
                    .filter(|w| !w.is_empty())
                    .map(|w| (index + 1, w.to_owned())),
            );
        }
        words
    }
}

/// What a character of a Rust file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Code,
    Comment,
    Literal,
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The repository this package lies in.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package lies in the workspace")
        .to_path_buf()
}

/// Every text file of the repository, sorted by path. Build output and fuzz corpora are not part of it.
pub(crate) fn tree() -> Vec<Source> {
    let root = root();
    let mut files = Vec::new();
    walk(&root, &root, &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn walk(root: &Path, dir: &Path, files: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).expect("the tree can be read") {
        let path = entry.expect("the tree can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if ["target", ".git", "corpus", "artifacts"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            walk(root, &path, files);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path =
                path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
            files.push(Source { path, text });
        }
    }
}

/// Sorts the characters of Rust source into code, comments and the insides of literals.
fn split(text: &str) -> Vec<(char, Part)> {
    let chars: Vec<char> = text.chars().collect();
    let mut out = Vec::with_capacity(chars.len());
    let mut at = 0;
    while at < chars.len() {
        let (part, end) = span(&chars, at);
        out.extend(chars[at..end].iter().map(|&c| (c, part)));
        at = end;
    }
    out
}

/// What begins at `at`, and where it ends.
fn span(chars: &[char], at: usize) -> (Part, usize) {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => (Part::Comment, find(chars, at, |c| c == '\n')),
        '/' if next == Some('*') => (Part::Comment, block_comment_end(chars, at)),
        '"' => (Part::Literal, quoted_end(chars, at, '"')),
        '\'' if next == Some('\\') || chars.get(at + 2) == Some(&'\'') => {
            (Part::Literal, quoted_end(chars, at, '\''))
        }
        'r' => match raw_string_end(chars, at) {
            Some(end) => (Part::Literal, end),
            None => (Part::Code, at + 1),
        },
        _ => (Part::Code, at + 1),
    }
}

fn find(chars: &[char], from: usize, stop: impl Fn(char) -> bool) -> usize {
    chars[from..].iter().position(|&c| stop(c)).map_or(chars.len(), |n| from + n)
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let mut depth = 0;
    let mut i = at;
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn quoted_end(chars: &[char], at: usize, quote: char) -> usize {
    let mut i = at + 1;
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            c if c == quote => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

/// The end of the raw string that begins with the `r` at `at`, if one does.
fn raw_string_end(chars: &[char], at: usize) -> Option<usize> {
    let before = |n: usize| at.checked_sub(n).map(|i| chars[i]);
    let prefixed = matches!(before(1), Some('b' | 'c')) && !before(2).is_some_and(is_word);
    if before(1).is_some_and(is_word) && !prefixed {
        return None;
    }
    let open = find(chars, at + 1, |c| c != '#');
    let hashes = open - at - 1;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let mut i = open + 1;
    while i < chars.len() {
        let close = find(chars, i, |c| c == '"');
        i = close + 1;
        if chars.get(i..i + hashes).is_some_and(|tail| tail.iter().all(|&c| c == '#')) {
            return Some(i + hashes);
        }
    }
    Some(chars.len())
}

#[test]
fn code_comments_and_literals_are_told_apart() {
    let source = Source::new(
        "a.rs",
        "let a = \"unsafe // x\"; // unsafe one\nlet b = r#\"unsafe \" two\"#; /* un /* nested */ safe */ fn f<'a>() {}\nlet c = '\\''; let d = '\"'; call(br\"raw\"); r#type",
    );
    let words: Vec<String> = source.words().into_iter().map(|(_, w)| w).collect();
    assert_eq!(
        words,
        ["let", "a", "let", "b", "fn", "f", "a", "let", "c", "let", "d", "call", "b", "r", "type"]
    );
    let comments = source.only(Part::Comment);
    assert!(comments.contains("unsafe one") && comments.contains("nested */ safe */"));
    assert!(!comments.contains("// x") && !comments.contains("two"));
    assert!(source.only(Part::Literal).contains("unsafe \" two"));
}
