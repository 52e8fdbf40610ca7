//! WebSocket frames as a server sees them (RFC 6455 §5): nothing of a message is kept, its bytes go on as they come.

/// Bytes of a control frame's payload.
const MAX_CONTROL: usize = 125;

/// Why a connection cannot go on: a close code and a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    pub code: u16,
    pub reason: &'static str,
}

const fn broken(reason: &'static str) -> Violation {
    Violation { code: 1002, reason }
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of a text message, in the buffer given to [`Decoder::next`]; the flag says that the message ends here.
    Text(bool),
    /// A ping; its payload is in the buffer.
    Ping,
    /// The peer closes.
    Close,
}

/// Reads frames from a client in pieces.
#[derive(Default)]
pub struct Decoder {
    header: [u8; 14],
    have: u8,
    in_payload: bool,
    remaining: u64,
    mask_at: u8,
    in_message: bool,
    control: Vec<u8>,
}

impl Decoder {
    /// Reads from `data` until a piece is complete, and moves `data` past it. `None` when more is needed.
    ///
    /// # Errors
    /// When the peer breaks the protocol, or sends anything but text.
    pub fn next(&mut self, data: &mut &[u8], buffer: &mut Vec<u8>) -> Result<Option<Piece>, Violation> {
        buffer.clear();
        loop {
            if !self.in_payload && !self.read_header(data)? {
                return Ok(None);
            }
            let take = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(data.len());
            let control = self.opcode() >= 8;
            let target = if control { &mut self.control } else { &mut *buffer };
            let start = target.len();
            target.extend_from_slice(&data[..take]);
            let mask: [u8; 4] = [10, 11, 12, 13].map(|index: usize| self.header[index]);
            unmask(&mut target[start..], mask, usize::from(self.mask_at));
            self.mask_at = (self.mask_at + (take % 4) as u8) % 4;
            self.remaining -= take as u64;
            *data = &data[take..];
            let whole = self.remaining == 0;
            if whole {
                self.in_payload = false;
                self.have = 0;
            }
            if control {
                if !whole {
                    return Ok(None);
                }
                let payload = std::mem::take(&mut self.control);
                match self.opcode() {
                    8 => return Ok(Some(Piece::Close)),
                    9 => {
                        *buffer = payload;
                        return Ok(Some(Piece::Ping));
                    }
                    _ => continue,
                }
            }
            let end = whole && self.header[0] & 0x80 != 0;
            if whole {
                self.in_message = !end;
            }
            if end || !buffer.is_empty() {
                return Ok(Some(Piece::Text(end)));
            }
            if data.is_empty() {
                return Ok(None);
            }
        }
    }

    fn opcode(&self) -> u8 {
        self.header[0] & 0x0F
    }

    /// Reads the header of the next frame; true when it is complete.
    fn read_header(&mut self, data: &mut &[u8]) -> Result<bool, Violation> {
        loop {
            let have = usize::from(self.have);
            if have >= 2 && have == self.header_length() {
                break;
            }
            let Some((byte, rest)) = data.split_first() else {
                return Ok(false);
            };
            self.header[have] = *byte;
            self.have += 1;
            *data = rest;
            if self.have == 2 {
                self.check()?;
            }
        }
        let length = self.header_length();
        self.remaining = match self.header[1] & 0x7F {
            126 => u64::from(u16::from_be_bytes([self.header[2], self.header[3]])),
            127 => u64::from_be_bytes([2, 3, 4, 5, 6, 7, 8, 9].map(|index: usize| self.header[index])),
            short => u64::from(short),
        };
        if self.remaining >> 63 != 0 {
            return Err(broken("a frame has an impossible length"));
        }
        self.header.copy_within(length - 4..length, 10);
        self.mask_at = 0;
        self.in_payload = true;
        Ok(true)
    }

    fn header_length(&self) -> usize {
        match self.header[1] & 0x7F {
            126 => 8,
            127 => 14,
            _ => 6,
        }
    }

    fn check(&self) -> Result<(), Violation> {
        let [first, second, ..] = self.header;
        if first & 0x70 != 0 {
            return Err(broken("a reserved bit is set"));
        }
        if second & 0x80 == 0 {
            return Err(broken("a frame is not masked"));
        }
        match (self.opcode(), self.in_message) {
            (0, true) | (1, false) => Ok(()),
            (0, false) => Err(broken("a continuation continues nothing")),
            (1 | 2, true) => Err(broken("a message begins inside another")),
            (2, false) => Err(Violation {
                code: 1003,
                reason: "only text messages are accepted",
            }),
            (8..=10, _) if first & 0x80 == 0 || usize::from(second & 0x7F) > MAX_CONTROL => {
                Err(broken("a control frame is fragmented or too long"))
            }
            (8..=10, _) => Ok(()),
            _ => Err(broken("an unknown kind of frame")),
        }
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut turned = mask;
    turned.rotate_left(offset);
    let (words, tail) = bytes.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(turned)).to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(turned) {
        *byte ^= mask;
    }
}

/// Appends the header of an unmasked frame; the payload follows.
pub fn frame_header(out: &mut Vec<u8>, opcode: u8, length: usize) {
    out.push(0x80 | opcode);
    match length {
        0..=125 => out.push(length as u8),
        126..=0xFFFF => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Appends a text message.
pub fn text(out: &mut Vec<u8>, payload: &[u8]) {
    frame_header(out, 1, payload.len());
    out.extend_from_slice(payload);
}

/// Appends the answer to a ping.
pub fn pong(out: &mut Vec<u8>, payload: &[u8]) {
    frame_header(out, 10, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a close frame.
pub fn close(out: &mut Vec<u8>, code: u16) {
    frame_header(out, 8, 2);
    out.extend_from_slice(&code.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut frame = Vec::new();
        frame_header(&mut frame, first & 0x0F, payload.len());
        frame[0] = first;
        frame[1] |= 0x80;
        frame.extend(mask);
        let start = frame.len();
        frame.extend_from_slice(payload);
        unmask(&mut frame[start..], mask, 0);
        frame
    }

    /// Messages, `ping:…` and `close`, however the bytes are cut.
    fn read(bytes: &[u8], step: usize) -> Result<Vec<String>, Violation> {
        let (mut decoder, mut buffer, mut seen, mut message) = (Decoder::default(), Vec::new(), Vec::new(), Vec::new());
        for mut piece in bytes.chunks(step) {
            while let Some(found) = decoder.next(&mut piece, &mut buffer)? {
                match found {
                    Piece::Text(end) => {
                        message.extend_from_slice(&buffer);
                        if end {
                            seen.push(String::from_utf8(std::mem::take(&mut message)).unwrap());
                        }
                    }
                    Piece::Ping => seen.push(format!("ping:{}", String::from_utf8_lossy(&buffer))),
                    Piece::Close => seen.push("close".into()),
                }
            }
        }
        Ok(seen)
    }

    #[test]
    fn any_cut_gives_the_same_messages() {
        let long = "가".repeat(30_000);
        let mut bytes = masked(0x81, b"<open/>");
        bytes.extend(masked(0x01, b"<mess"));
        bytes.extend(masked(0x89, b"still there?"));
        bytes.extend(masked(0x00, b""));
        bytes.extend(masked(0x8A, b"unasked"));
        bytes.extend(masked(0x80, b"age/>"));
        bytes.extend(masked(0x81, long.as_bytes()));
        bytes.extend(masked(0x81, &[b'x'; 300]));
        bytes.extend(masked(0x88, &[3, 232]));
        let expected = [
            "<open/>",
            "ping:still there?",
            "<message/>",
            &long,
            &"x".repeat(300),
            "close",
        ];
        for step in [1, 2, 3, 7, 1000, bytes.len()] {
            assert_eq!(read(&bytes, step).unwrap(), expected, "{step}");
        }
    }

    #[test]
    fn violations() {
        let code = |bytes: &[u8]| read(bytes, 1).unwrap_err().code;
        assert_eq!(code(&[0x81, 0x00]), 1002, "not masked");
        assert_eq!(code(&masked(0xC1, b"x")), 1002, "reserved bit");
        assert_eq!(code(&masked(0x82, b"x")), 1003, "binary");
        assert_eq!(code(&masked(0x80, b"x")), 1002, "continuation of nothing");
        assert_eq!(code(&masked(0x83, b"x")), 1002, "unknown opcode");
        assert_eq!(code(&masked(0x09, b"x")), 1002, "fragmented ping");
        assert_eq!(code(&[0x89, 0xFE]), 1002, "long ping");
        assert_eq!(
            code(&[0x81, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]),
            1002,
            "length with the top bit"
        );
        let mut nested = masked(0x01, b"a");
        nested.extend(masked(0x81, b"b"));
        assert_eq!(code(&nested), 1002);
    }
}
