//! Which characters may stand where (XML 1.0 §2.2, §2.3; Namespaces in XML §3), as tables and checks.

use super::error::{Condition, XmlError};

/// Bytes that end a run of plain character data in content.
pub(super) const TEXT_STOP: [bool; 256] = stops(b"<&]>\r\n", false);
/// Bytes that end a run of plain characters in an attribute value.
pub(super) const VALUE_STOP: [bool; 256] = stops(b"<&'\"\t\r\n", true);
/// Bytes that end a run of plain characters in a CDATA section.
pub(super) const CDATA_STOP: [bool; 256] = stops(b"]>\r\n", false);
/// Bytes that may be part of a name, as far as one byte can tell.
pub(super) const NAME_BYTE: [bool; 256] = name_bytes();

const fn stops(set: &[u8], tab: bool) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = tab || byte != 0x09;
        byte += 1;
    }
    let mut index = 0;
    while index < set.len() {
        table[set[index] as usize] = true;
        index += 1;
    }
    table
}

const fn name_bytes() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let value = byte as u8;
        table[byte] = value.is_ascii_alphanumeric() || matches!(value, b'-' | b'_' | b'.' | b':') || value >= 0x80;
        byte += 1;
    }
    table
}

/// White space of XML's grammar.
pub(super) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Whether a character may occur in a document at all.
pub(super) const fn is_xml_char(char: char) -> bool {
    matches!(char, '\t' | '\n' | '\r' | '\u{20}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}')
}

/// Character data as a string. Control characters were refused byte by byte before; what is left to check is the
/// encoding and the two non-characters.
pub(super) fn decode(bytes: &[u8]) -> Result<&str, XmlError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| XmlError::new(Condition::UnsupportedEncoding, "the stream is not valid UTF-8"))?;
    let noncharacter = |window: &[u8]| matches!(window, [0xEF, 0xBF, 0xBE | 0xBF]);
    if bytes.contains(&0xEF) && bytes.windows(3).any(noncharacter) {
        return Err(XmlError::malformed("a character that XML forbids"));
    }
    Ok(text)
}

/// Whether every character of a string may occur in a document.
pub(super) fn is_xml_text(text: &str) -> bool {
    text.bytes().all(|byte| (0x20..0x7F).contains(&byte)) || text.chars().all(is_xml_char)
}

const fn is_name_start(char: char) -> bool {
    matches!(char,
        'A'..='Z' | 'a'..='z' | '_' | '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}' | '\u{F8}'..='\u{2FF}'
        | '\u{370}'..='\u{37D}' | '\u{37F}'..='\u{1FFF}' | '\u{200C}'..='\u{200D}' | '\u{2070}'..='\u{218F}'
        | '\u{2C00}'..='\u{2FEF}' | '\u{3001}'..='\u{D7FF}' | '\u{F900}'..='\u{FDCF}' | '\u{FDF0}'..='\u{FFFD}'
        | '\u{10000}'..='\u{EFFFF}')
}

const fn is_name_part(char: char) -> bool {
    is_name_start(char)
        || matches!(char, '-' | '.' | '0'..='9' | '\u{B7}' | '\u{300}'..='\u{36F}' | '\u{203F}'..='\u{2040}')
}

/// Whether a string is a name without a colon (NCName).
pub(super) fn is_ncname(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(is_name_start) && chars.all(is_name_part)
}

/// Splits a qualified name into prefix (empty when there is none) and local name.
pub(super) fn split_qname(qname: &str) -> Result<(&str, &str), XmlError> {
    let (prefix, local) = qname.split_once(':').unwrap_or(("", qname));
    if !is_ncname(local) || (local.len() != qname.len() && !is_ncname(prefix)) {
        return Err(XmlError::malformed("a name is not a valid XML name"));
    }
    Ok((prefix, local))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "_", "message", "x-y.z1", "가나", "é"] {
            assert!(is_ncname(good), "{good}");
        }
        for bad in ["", "1a", "-a", ".a", "a b", "a:b", "×", "a\u{2028}"] {
            assert!(!is_ncname(bad), "{bad}");
        }
        assert_eq!(split_qname("stream:features").unwrap(), ("stream", "features"));
        for bad in ["a:b:c", ":a", "a:", ":", "1:a", "a:1"] {
            assert!(split_qname(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn characters() {
        assert!(decode("한국어 \u{1F600} \u{FFFD}".as_bytes()).is_ok());
        assert_eq!(
            decode(&[0xC0, 0x80]).unwrap_err().condition,
            Condition::UnsupportedEncoding
        );
        assert_eq!(
            decode(&[0xED, 0xA0, 0x80]).unwrap_err().condition,
            Condition::UnsupportedEncoding
        );
        assert_eq!(
            decode("\u{FFFE}".as_bytes()).unwrap_err().condition,
            Condition::NotWellFormed
        );
        assert!(!is_xml_text("a\0b") && !is_xml_text("\u{FFFF}") && is_xml_text("tab\tline\n"));
    }
}
