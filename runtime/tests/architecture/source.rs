//! A source file as the rules read it.

use std::fs;
use std::path::Path;

/// A file of `src`.
pub struct Source {
    /// Below `src`, with `/`.
    pub path: String,
    /// Its module, from the crate's root on.
    pub module: Vec<String>,
    text: String,
    /// The text with comments and strings blanked, line by line as long as before.
    code: Vec<char>,
}

/// Every file of the runtime.
pub fn sources() -> Vec<Source> {
    sources_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

/// Every file of the workspace; paths are below its root.
pub fn sources_of_all() -> Vec<Source> {
    sources_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
}

fn sources_below(root: &Path) -> Vec<Source> {
    let (mut folders, mut found) = (vec![root.to_path_buf()], Vec::new());
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                // What is built, and what is no source.
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path.strip_prefix(root).unwrap_or(&path);
                let name = below.to_string_lossy().replace('\\', "/");
                let text =
                    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                found.push(Source::new(&name, &text));
            }
        }
    }
    found
}

impl Source {
    /// The file at `path` below `src`.
    pub fn new(path: &str, text: &str) -> Self {
        let mut module: Vec<String> = path
            .trim_end_matches(".rs")
            .split('/')
            .map(str::to_owned)
            .collect();
        if module
            .last()
            .is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str()))
        {
            module.pop();
        }
        Self {
            path: path.to_owned(),
            module,
            text: text.to_owned(),
            code: blank(text),
        }
    }

    /// Every word of the code, with its line.
    pub fn words(&self) -> Vec<(usize, String)> {
        let tokens = tokens(&self.code).into_iter();
        let words = tokens.filter(|(_, token)| is_word(token));
        words.collect()
    }

    /// Every path that begins with `crate`, `self` or `super`, from the crate's root on.
    pub fn paths(&self) -> Vec<(usize, Vec<String>)> {
        let tokens = tokens(&self.code);
        let mut found = Vec::new();
        // Inline modules around the current place, and the depth of braces at which each ends.
        let mut inner: Vec<(String, usize)> = Vec::new();
        let (mut depth, mut at) = (0usize, 0usize);
        let token = |index: usize| tokens.get(index).map_or("", |(_, token)| token.as_str());
        while at < tokens.len() {
            match token(at) {
                "mod" if token(at + 2) == "{" => {
                    inner.push((token(at + 1).to_owned(), depth));
                    depth += 1;
                    at += 3;
                }
                "{" => {
                    depth += 1;
                    at += 1;
                }
                "}" => {
                    depth = depth.saturating_sub(1);
                    if inner.last().is_some_and(|(_, end)| *end == depth) {
                        inner.pop();
                    }
                    at += 1;
                }
                "crate" | "self" | "super" if token(at + 1) == "::" => {
                    let mut base = match token(at) {
                        "crate" => Vec::new(),
                        _ => self.module.clone(),
                    };
                    if token(at) != "crate" {
                        base.extend(inner.iter().map(|(name, _)| name.clone()));
                    }
                    if token(at) == "super" {
                        base.pop();
                    }
                    at = tree(&tokens, at + 2, base, &mut found);
                }
                _ => at += 1,
            }
        }
        found
    }

    /// Whether the comments right above the statement at `line` hold a proof.
    pub fn is_justified(&self, line: usize) -> bool {
        let code: String = self.code.iter().collect();
        let (lines, code): (Vec<_>, Vec<_>) = (self.text.lines().collect(), code.lines().collect());
        for above in (0..line.saturating_sub(1)).rev() {
            let comment = lines[above].trim();
            if comment.starts_with("//") {
                if comment.contains("SAFETY:") || comment.contains("# Safety") {
                    return true;
                }
                continue;
            }
            let statement = code.get(above).map_or("", |line| line.trim());
            let ended = statement.ends_with([';', '}']) || statement.ends_with('{');
            if statement.is_empty() || ended {
                return false;
            }
        }
        false
    }
}

/// Reads what follows `crate::`: segments, and groups of them.
fn tree(
    tokens: &[(usize, String)],
    mut at: usize,
    mut base: Vec<String>,
    found: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let token = |index: usize| tokens.get(index).map_or("", |(_, token)| token.as_str());
    let line = |index: usize| tokens.get(index).map_or(0, |(line, _)| *line);
    loop {
        match token(at) {
            "{" => {
                at += 1;
                while at < tokens.len() && token(at) != "}" {
                    if token(at) == "," {
                        at += 1;
                    } else {
                        at = tree(tokens, at, base.clone(), found);
                    }
                }
                return at + 1;
            }
            "super" => {
                base.pop();
            }
            "self" => {}
            word if is_word(word) => base.push(word.to_owned()),
            _ => {
                // `*`: the module itself.
                found.push((line(at), base));
                return at + 1;
            }
        }
        if token(at + 1) != "::" {
            found.push((line(at), base));
            at += 1;
            if token(at) == "as" {
                at += 2;
            }
            return at;
        }
        at += 2;
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Words, `::` and single characters, with their lines.
fn tokens(code: &[char]) -> Vec<(usize, String)> {
    let (mut found, mut line, mut at) = (Vec::new(), 1, 0);
    while at < code.len() {
        let start = at;
        let letter = |c: &char| c.is_alphanumeric() || *c == '_';
        if letter(&code[at]) {
            while code.get(at).is_some_and(letter) {
                at += 1;
            }
        } else if code[at] == ':' && code.get(at + 1) == Some(&':') {
            at += 2;
        } else {
            at += 1;
        }
        if code[start] == '\n' {
            line += 1;
        } else if !code[start].is_whitespace() {
            found.push((line, code[start..at].iter().collect()));
        }
    }
    found
}

/// Puts spaces in place of comments, strings and characters.
fn blank(text: &str) -> Vec<char> {
    let mut code: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < code.len() {
        let end = match (code[at], code.get(at + 1)) {
            ('/', Some('/')) => end_of_line(&code, at),
            ('/', Some('*')) => end_of_block(&code, at),
            ('"', _) => end_of_string(&code, at + 1),
            ('r', Some('"' | '#')) if !follows_a_word(&code, at) => end_of_raw(&code, at + 1),
            ('\'', Some('\\')) => position(&code, at + 3, |c| c == '\'') + 1,
            ('\'', Some(_)) if code.get(at + 2) == Some(&'\'') => at + 3,
            _ => {
                at += 1;
                continue;
            }
        };
        let end = end.min(code.len());
        for character in &mut code[at..end] {
            if *character != '\n' {
                *character = ' ';
            }
        }
        at = end.max(at + 1);
    }
    code
}

fn follows_a_word(code: &[char], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| code.get(before));
    // `br"…"` is a string too.
    before.is_some_and(|c| (c.is_alphanumeric() || *c == '_') && *c != 'b')
}

fn position(code: &[char], from: usize, is: impl Fn(char) -> bool) -> usize {
    let rest = code.iter().skip(from).position(|c| is(*c));
    rest.map_or(code.len(), |index| from + index)
}

fn end_of_line(code: &[char], at: usize) -> usize {
    position(code, at, |c| c == '\n')
}

fn end_of_block(code: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < code.len() {
        match (code[at], code.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    break;
                }
            }
            _ => at += 1,
        }
    }
    at
}

fn end_of_string(code: &[char], mut at: usize) -> usize {
    while at < code.len() && code[at] != '"' {
        at += if code[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// From behind the `r`. A raw identifier (`r#type`) ends at once.
fn end_of_raw(code: &[char], at: usize) -> usize {
    let quote = position(code, at, |c| c != '#');
    if code.get(quote) != Some(&'"') {
        return at;
    }
    let hashes = quote - at;
    let mut end = quote + 1;
    while end < code.len() {
        let closed =
            code[end] == '"' && (1..=hashes).all(|offset| code.get(end + offset) == Some(&'#'));
        end += 1;
        if closed {
            return end + hashes;
        }
    }
    end
}
