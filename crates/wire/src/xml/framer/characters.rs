//! Character data: in content, in attribute values and in CDATA sections, with its line ends and references.

use super::super::chars::{is_space, is_xml_char, CDATA_STOP, NAME_BYTE, TEXT_STOP, VALUE_STOP};
use super::{Condition, Framer, State, XmlError};

/// What stood right before a byte of text.
struct Before {
    brackets: u8,
    after_return: bool,
}

impl Framer {
    /// Content of an element, or what stands between top-level elements.
    pub(super) fn content(&mut self, input: &[u8], at: &mut usize) -> Result<(), XmlError> {
        if self.stack.is_empty() {
            return self.outside(input[*at], at);
        }
        let Some((byte, before)) = self.text_run(input, at, &TEXT_STOP) else {
            return Ok(());
        };
        match byte {
            b'<' => self.state = State::Less,
            b'&' => self.begin_reference(false),
            b'>' if before.brackets >= 2 => return Err(XmlError::malformed("']]>' stands in character data")),
            _ => return self.text_byte(byte, before),
        }
        Ok(())
    }

    /// Takes text up to a byte that `stop` names, and that byte; with what stood right before it. `None` at the end of the
    /// input.
    fn text_run(&mut self, input: &[u8], at: &mut usize, stop: &[bool; 256]) -> Option<(u8, Before)> {
        let run = run(&input[*at..], stop);
        if run > 0 {
            self.text.extend_from_slice(&input[*at..*at + run]);
            self.after_return = false;
            self.brackets = 0;
            *at += run;
        }
        let byte = *input.get(*at)?;
        *at += 1;
        let before = Before {
            brackets: std::mem::take(&mut self.brackets),
            after_return: std::mem::take(&mut self.after_return),
        };
        Some((byte, before))
    }

    /// A byte that may have a meaning, and has none beyond the text here.
    fn text_byte(&mut self, byte: u8, before: Before) -> Result<(), XmlError> {
        match byte {
            b'>' => self.text.push(b'>'),
            b']' => {
                self.brackets = before.brackets.saturating_add(1);
                self.text.push(b']');
            }
            b'\r' => {
                self.after_return = true;
                self.text.push(b'\n');
            }
            b'\n' if before.after_return => {}
            b'\n' => self.text.push(b'\n'),
            _ => return Err(XmlError::malformed("a control character")),
        }
        Ok(())
    }

    /// Before, between and after top-level elements only white space may stand.
    pub(super) fn outside(&mut self, byte: u8, at: &mut usize) -> Result<(), XmlError> {
        *at += 1;
        match byte {
            b'<' => {
                self.used = 1;
                self.nodes = 0;
                self.state = State::Less;
            }
            _ if is_space(byte) => {}
            0xEF if self.fresh && self.root.is_none() => {
                self.short_len = 0;
                self.state = State::ByteOrderMark;
            }
            0xFE | 0xFF | 0x00 if self.fresh && self.root.is_none() => {
                return Err(XmlError::new(Condition::UnsupportedEncoding, "the stream is not UTF-8"));
            }
            _ if byte < 0x20 => return Err(XmlError::malformed("a control character")),
            _ => {
                return Err(XmlError::new(
                    Condition::BadFormat,
                    "character data stands outside of any stanza",
                ))
            }
        }
        Ok(())
    }

    pub(super) fn cdata(&mut self, input: &[u8], at: &mut usize) -> Result<(), XmlError> {
        match self.text_run(input, at, &CDATA_STOP) {
            Some((b'>', before)) if before.brackets >= 2 => {
                self.text.truncate(self.text.len() - 2);
                self.state = State::Content;
                Ok(())
            }
            Some((byte, before)) => self.text_byte(byte, before),
            None => Ok(()),
        }
    }

    pub(super) fn value(&mut self, input: &[u8], at: &mut usize) -> Result<(), XmlError> {
        let run = run(&input[*at..], &VALUE_STOP);
        if run > 0 {
            self.tag.extend(&input[*at..*at + run]);
            self.after_return = false;
            *at += run;
        }
        let Some(&byte) = input.get(*at) else { return Ok(()) };
        *at += 1;
        let after_return = std::mem::take(&mut self.after_return);
        match byte {
            _ if byte == self.quote => {
                self.tag.end_value();
                self.state = State::AfterValue;
            }
            b'"' | b'\'' => self.tag.push(byte),
            b'&' => self.begin_reference(true),
            // XML 1.0 §3.3.3: literal white space in a value is a space, a line end is one of them.
            b'\n' if after_return => {}
            b'\r' => {
                self.after_return = true;
                self.tag.push(b' ');
            }
            b'\t' | b'\n' => self.tag.push(b' '),
            b'<' => return Err(XmlError::malformed("'<' stands in an attribute's value")),
            _ => return Err(XmlError::malformed("a control character")),
        }
        Ok(())
    }

    pub(super) fn bang(&mut self, byte: u8) -> Result<(), XmlError> {
        const CDATA: &[u8] = b"[CDATA[";
        let index = usize::from(self.short_len);
        if CDATA[index] != byte {
            return Err(match (index, byte) {
                (0, b'-') => XmlError::restricted("comments are not allowed"),
                (0, b'D') => XmlError::restricted("document type definitions are not allowed"),
                _ => XmlError::malformed("a tag has no name"),
            });
        }
        if self.stack.is_empty() {
            return Err(XmlError::malformed("character data stands outside of any element"));
        }
        self.short_len += 1;
        if index + 1 == CDATA.len() {
            self.brackets = 0;
            self.after_return = false;
            self.state = State::Cdata;
        }
        Ok(())
    }

    pub(super) fn begin_reference(&mut self, in_value: bool) {
        self.in_value = in_value;
        self.short_len = 0;
        self.state = State::Reference;
    }

    pub(super) fn reference(&mut self, byte: u8) -> Result<(), XmlError> {
        let length = usize::from(self.short_len);
        if byte != b';' {
            if !byte.is_ascii_alphanumeric() && byte != b'#' {
                return Err(if length > 0 && NAME_BYTE[usize::from(byte)] {
                    XmlError::restricted("only the five predefined entities are allowed")
                } else {
                    XmlError::malformed("'&' stands for itself")
                });
            }
            if length == self.short.len() {
                return Err(XmlError::restricted("only the five predefined entities are allowed"));
            }
            self.short[length] = byte;
            self.short_len += 1;
            return Ok(());
        }
        let char = match &self.short[..length] {
            b"amp" => '&',
            b"lt" => '<',
            b"gt" => '>',
            b"apos" => '\'',
            b"quot" => '"',
            [b'#', number @ ..] => {
                character(number).ok_or(XmlError::malformed("a character reference to no character"))?
            }
            [] => return Err(XmlError::malformed("'&' stands for itself")),
            _ => return Err(XmlError::restricted("only the five predefined entities are allowed")),
        };
        let mut utf8 = [0u8; 4];
        let bytes = char.encode_utf8(&mut utf8).as_bytes();
        if self.in_value {
            self.tag.extend(bytes);
            self.state = State::Value;
        } else {
            self.text.extend_from_slice(bytes);
            self.state = State::Content;
        }
        Ok(())
    }
}

/// Length of the run before the first byte that a table stops at.
fn run(bytes: &[u8], stop: &[bool; 256]) -> usize {
    bytes
        .iter()
        .position(|byte| stop[usize::from(*byte)])
        .unwrap_or(bytes.len())
}

/// The character of a numeric reference, the part between `#` and `;`.
fn character(number: &[u8]) -> Option<char> {
    let text = std::str::from_utf8(number).ok()?;
    let value = match text.strip_prefix('x') {
        Some(hex) if hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => u32::from_str_radix(hex, 16),
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse(),
        _ => return None,
    };
    value.ok().and_then(char::from_u32).filter(|char| is_xml_char(*char))
}
