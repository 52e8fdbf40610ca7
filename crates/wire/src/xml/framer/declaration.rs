//! The XML declaration (XML 1.0 §2.8): only at the very start, only version 1.0, only UTF-8 (RFC 6120 §11.6).

use super::super::chars::is_space;
use super::{Condition, Framer, State, XmlError};

/// Bytes between `<?` and `?>`.
const MAX_DECLARATION: usize = 128;

impl Framer {
    pub(super) fn declaration(&mut self, byte: u8) -> Result<(), XmlError> {
        if byte == b'>' && self.text.last() == Some(&b'?') {
            self.text.pop();
            check(&self.text)?;
            self.text.clear();
            self.fresh = false;
            self.used = 0;
            self.state = State::Content;
            return Ok(());
        }
        if self.text.len() == MAX_DECLARATION {
            return Err(XmlError::policy("the XML declaration is too long"));
        }
        self.text.push(byte);
        Ok(())
    }
}

fn check(body: &[u8]) -> Result<(), XmlError> {
    const MALFORMED: XmlError = XmlError::malformed("the XML declaration is malformed");
    let Some(mut rest) = body
        .strip_prefix(b"xml")
        .filter(|rest| rest.first().is_some_and(|byte| is_space(*byte)))
    else {
        return Err(XmlError::restricted("processing instructions are not allowed"));
    };
    let mut expected: &[&[u8]] = &[b"version", b"encoding", b"standalone"];
    loop {
        let before = rest.len();
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            break;
        }
        let spaced = rest.len() < before;
        let equals = rest.iter().position(|byte| *byte == b'=').ok_or(MALFORMED)?;
        let name = rest[..equals].trim_ascii_end();
        let place = expected.iter().position(|known| *known == name).ok_or(MALFORMED)?;
        let value = rest[equals + 1..].trim_ascii_start();
        let (quote, value) = value.split_first().ok_or(MALFORMED)?;
        let end = value.iter().position(|byte| byte == quote).ok_or(MALFORMED)?;
        // The version comes first and is the only part that must be there.
        if !spaced || !matches!(quote, b'"' | b'\'') || (expected.len() == 3 && place != 0) {
            return Err(MALFORMED);
        }
        match (name, &value[..end]) {
            (b"version", b"1.0") | (b"standalone", b"yes" | b"no") => {}
            (b"encoding", encoding) if encoding.eq_ignore_ascii_case(b"utf-8") => {}
            (b"encoding", _) => return Err(XmlError::new(Condition::UnsupportedEncoding, "the stream is not UTF-8")),
            _ => return Err(MALFORMED),
        }
        expected = &expected[place + 1..];
        rest = &value[end + 1..];
    }
    if expected.len() == 3 {
        return Err(MALFORMED);
    }
    Ok(())
}
