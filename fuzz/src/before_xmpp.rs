//! What a connection may begin with: a PROXY header, an HTTP request, WebSocket frames. None of it may depend on how the
//! bytes are cut.

use moim_plane::xmpp::fuzzing::{proxy_header, upgrade_request, Answer, Decoder, Piece};
use moim_plane::xmpp::{ListenerOptions, Mode};

/// One input; its first byte says where the rest is cut.
pub fn run(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else { return };
    let whole = proxy_header(bytes);
    if let Ok(Some(header)) = &whole {
        assert!(header.length <= bytes.len() && header.length <= 16 + 1024);
        for length in 0..header.length {
            assert_eq!(
                proxy_header(&bytes[..length]),
                Ok(None),
                "the header ends where it ends"
            );
        }
        assert_eq!(
            &proxy_header(&bytes[..header.length]),
            &whole,
            "what follows does not count"
        );
    }
    for origins in [vec![], vec!["https://a.test".to_owned()], vec!["*".to_owned()]] {
        let options = ListenerOptions {
            mode: Mode::WebSocket,
            proxy_protocol: false,
            origins,
            path: "/xmpp-websocket".to_owned(),
        };
        let (Answer::Accept(head) | Answer::Refuse(head, _)) = upgrade_request(bytes, &options, true);
        let lines = head.split("\r\n").take_while(|line| !line.is_empty());
        assert!(
            head.starts_with("HTTP/1.1 ") && lines.count() < 12,
            "nothing of the request becomes a header"
        );
    }
    let at_once = frames([bytes]);
    let (left, right) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(at_once, frames([left, right]));
    assert_eq!(at_once, frames(bytes.chunks(1)));
}

/// Texts and pings, and how it ended. Pieces of a text are joined: where they are cut is no business of anybody.
fn frames<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<(u8, Vec<u8>)>, String) {
    let (mut decoder, mut buffer) = (Decoder::default(), Vec::new());
    let (mut seen, mut text) = (Vec::new(), Vec::new());
    for mut piece in pieces {
        loop {
            match decoder.next(&mut piece, &mut buffer) {
                Ok(None) => break,
                Ok(Some(Piece::Text(end))) => {
                    text.extend_from_slice(&buffer);
                    if end {
                        seen.push((1, std::mem::take(&mut text)));
                    }
                }
                Ok(Some(Piece::Ping)) => {
                    assert!(buffer.len() <= 125);
                    seen.push((9, buffer.clone()));
                }
                Ok(Some(Piece::Close)) => return (seen, "closed".to_owned()),
                Err(violation) => return (seen, format!("{violation:?}")),
            }
        }
    }
    seen.push((0, text));
    (seen, String::new())
}
