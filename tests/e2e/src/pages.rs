//! The pages of the documentation, and the blocks of commands in them.
//!
//! The first words of a fence say what becomes of its block:
//!
//! | Fence | The block |
//! |---|---|
//! | `sh` | runs in the page's shell, in the order of the page |
//! | `sh background` | runs beside it until the page ends; `sh background "text"`: the next block waits for this output |
//! | `sh installation` | makes the installation that all pages share: run once, its result copied for each page |
//! | `sh root` | needs root or systemd: read for its syntax, not run |
//! | anything else: `console`, `text`, `json`, `toml` … | is shown, not run |

use std::path::Path;

/// What becomes of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// It runs in the page's shell.
    Shell,
    /// It runs until the page ends, and is ready once it has printed this text.
    Background(Option<String>),
    /// It makes the installation that all pages share.
    Installation,
    /// It needs root.
    Root,
    /// It is shown.
    Shown,
}

/// A fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The line of its fence, from 1.
    pub line: usize,
    /// What becomes of it.
    pub kind: Kind,
    /// Its text, without the indent of the fence.
    pub text: String,
}

/// A page.
#[derive(Debug, Clone)]
pub struct Page {
    /// Its path below the root of the repository.
    pub path: String,
    /// Its blocks, from top to bottom.
    pub blocks: Vec<Block>,
}

impl Page {
    /// Reads a page.
    ///
    /// # Errors
    /// When the file cannot be read, or a fence does not say what its block is: with page and line.
    pub fn read(root: &Path, path: &str) -> Result<Self, String> {
        let text = std::fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"))?;
        let blocks = blocks(&text).map_err(|(line, complaint)| format!("{path}:{line}: {complaint}"))?;
        Ok(Self { path: path.to_owned(), blocks })
    }

    /// The blocks that a test runs.
    pub fn executable(&self) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(|block| !matches!(block.kind, Kind::Root | Kind::Shown))
    }
}

/// A line from 1, and what is wrong there.
type Complaint = (usize, String);

fn blocks(text: &str) -> Result<Vec<Block>, Complaint> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some((indent, info)) = line.split_once("```").filter(|(before, _)| before.trim().is_empty()) else {
            continue;
        };
        let mut block = Block { line: at + 1, kind: kind(info).map_err(|c| (at + 1, c))?, text: String::new() };
        loop {
            let Some((_, line)) = lines.next() else { return Err((at + 1, "the block has no end".to_owned())) };
            let line = line.strip_prefix(indent).unwrap_or(line);
            if line.trim() == "```" {
                break;
            }
            block.text.push_str(line);
            block.text.push('\n');
        }
        found.push(block);
    }
    Ok(found)
}

fn kind(info: &str) -> Result<Kind, String> {
    let (language, rest) = info.trim().split_once(' ').unwrap_or((info.trim(), ""));
    match (language, rest.trim()) {
        ("", _) => Err("say what the block is: `sh` is run, `console`, `text`, `json` … are shown".to_owned()),
        ("bash" | "shell", _) => Err("say `sh`: such a block is run".to_owned()),
        ("sh", "") => Ok(Kind::Shell),
        ("sh", "background") => Ok(Kind::Background(None)),
        ("sh", "installation") => Ok(Kind::Installation),
        ("sh", "root") => Ok(Kind::Root),
        ("sh", words) => {
            let ready = words.strip_prefix("background ").map(str::trim);
            let ready = ready.and_then(|text| text.strip_prefix('"')?.strip_suffix('"'));
            let ready =
                ready.ok_or_else(|| format!("`sh {words}` is none of the kinds that tests/e2e/src/pages.rs lists"))?;
            Ok(Kind::Background(Some(ready.to_owned())))
        }
        _ => Ok(Kind::Shown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<(usize, Kind, String)> {
        blocks(text).unwrap().into_iter().map(|block| (block.line, block.kind, block.text)).collect()
    }

    #[test]
    fn the_words_of_a_fence_say_what_becomes_of_its_block() {
        let check = |info: &str, expected: Kind| {
            assert_eq!(kinds(&format!("a\n```{info}\nx\n```\n")), [(2, expected, "x\n".to_owned())], "{info}");
        };
        check("sh", Kind::Shell);
        check("sh background", Kind::Background(None));
        check("sh background \"it is up\"", Kind::Background(Some("it is up".to_owned())));
        check("sh installation", Kind::Installation);
        check("sh root", Kind::Root);
        check("console", Kind::Shown);
    }

    #[test]
    fn a_fence_that_does_not_say_it_is_refused_with_its_line() {
        for info in ["", "bash", "shell", "sh backgrund", "sh background up"] {
            assert_eq!(blocks(&format!("a\n\n```{info}\nx\n```\n")).unwrap_err().0, 3, "{info}");
        }
        assert_eq!(blocks("```sh\nx\n").unwrap_err().0, 1);
    }

    #[test]
    fn the_indent_of_a_list_is_not_the_block_s() {
        let text = "1. Do\n\n   ```sh\n   if a; then\n     b\n   fi\n\n   c\n   ```\n";
        assert_eq!(kinds(text), [(3, Kind::Shell, "if a; then\n  b\nfi\n\nc\n".to_owned())]);
    }
}
