//! What a text for people must not hold.

/// Whether a character would hide or reorder what stands around it: controls, line separators, and the bidirectional
/// and zero-width formatting characters (Unicode TR 36, section 2.10).
#[must_use]
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_no_deception() {
        assert!("Österreichische Mühle & Söhne, 山田, עברית, ‌👩‍👩‍👧 <b>=1+1".chars().all(|c| !is_deceptive(c)));
        for c in ['\0', '\n', '\t', '\u{7f}', '\u{9b}', '\u{2028}', '\u{202e}', '\u{2066}', '\u{200b}', '\u{feff}'] {
            assert!(is_deceptive(c), "{c:?}");
        }
    }
}
