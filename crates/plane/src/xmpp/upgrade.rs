//! The HTTP request that opens a WebSocket (RFC 6455 §4.2, RFC 7395 §3.1), and nothing else of HTTP.

use aws_lc_rs::digest::{digest, SHA1_FOR_LEGACY_USE_ONLY};

use super::config::ListenerOptions;

/// Bytes of the request, headers included.
pub const MAX_HEAD: usize = 8192;
const MAX_HEADERS: usize = 64;
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What to answer to a complete request.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The upgrade: send this, then frames follow.
    Accept(String),
    /// A refusal: send this and close. With the reason.
    Refuse(String, &'static str),
}

/// Judges a request head, the empty line included.
pub fn judge(head: &[u8], options: &ListenerOptions, tls: bool) -> Answer {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        _ => return refuse("400 Bad Request", "", "the HTTP request is malformed"),
    }
    let all = |name: &'static str| {
        let named = request
            .headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| std::str::from_utf8(header.value).unwrap_or("\u{FFFD}").trim())
    };
    let one = |name: &'static str| {
        let mut values = all(name);
        values.next().filter(|_| values.next().is_none())
    };
    let has_token = |name: &'static str, token: &str| {
        all(name)
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    if request.method != Some("GET") || request.version != Some(1) {
        return refuse(
            "405 Method Not Allowed",
            "Allow: GET\r\n",
            "the request is not an HTTP/1.1 GET",
        );
    }
    if request.path.and_then(|path| path.split('?').next()) != Some(options.path.as_str()) {
        return refuse("404 Not Found", "", "there is no such resource");
    }
    if !has_token("upgrade", "websocket") || !has_token("connection", "upgrade") {
        let extra = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
        return refuse(
            "426 Upgrade Required",
            extra,
            "the request does not ask for a WebSocket",
        );
    }
    if one("sec-websocket-version") != Some("13") {
        return refuse(
            "426 Upgrade Required",
            "Sec-WebSocket-Version: 13\r\n",
            "the WebSocket version is not 13",
        );
    }
    if !has_token("sec-websocket-protocol", "xmpp") {
        return refuse("400 Bad Request", "", "the subprotocol xmpp is not offered");
    }
    let Some(host) = one("host") else {
        return refuse("400 Bad Request", "", "the request names no host");
    };
    let origins: Vec<&str> = all("origin").collect();
    let allowed = match origins[..] {
        [] => true,
        [origin] => origin_allowed(origin, host, &options.origins, tls),
        _ => false,
    };
    if !allowed {
        return refuse("403 Forbidden", "", "the web page's origin is not allowed to connect");
    }
    let Some(key) = one("sec-websocket-key").filter(|key| valid_key(key)) else {
        return refuse("400 Bad Request", "", "the WebSocket key is malformed");
    };
    Answer::Accept(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n",
        accept_key(key)
    ))
}

fn refuse(status: &str, extra: &str, reason: &'static str) -> Answer {
    let body = format!("{reason}\n");
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n{extra}");
    Answer::Refuse(format!("{head}Connection: close\r\n\r\n{body}"), reason)
}

/// An origin is `scheme://host[:port]`; with an empty list it must be the host the request is addressed to.
fn origin_allowed(origin: &str, host: &str, allowed: &[String], tls: bool) -> bool {
    if !allowed.is_empty() {
        return allowed
            .iter()
            .any(|entry| entry == "*" || entry.eq_ignore_ascii_case(origin));
    }
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let default_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return false,
    };
    let own_port = if tls { ":443" } else { ":80" };
    let authority = authority.strip_suffix(default_port).unwrap_or(authority);
    authority.eq_ignore_ascii_case(host.strip_suffix(own_port).unwrap_or(host))
}

fn valid_key(key: &str) -> bool {
    key.len() == 24 && key.is_ascii() && key.ends_with("==") && key[..22].bytes().all(base64_value)
}

fn base64_value(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

fn accept_key(key: &str) -> String {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), GUID].concat());
    base64(hash.as_ref())
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let digit = ALPHABET[(word >> (18 - 6 * index)) as usize & 63];
            text.push(if index <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::config::Mode;
    use super::*;

    fn options(origins: &[&str]) -> ListenerOptions {
        ListenerOptions {
            mode: Mode::WebSocket,
            proxy_protocol: false,
            origins: origins.iter().map(ToString::to_string).collect(),
            path: "/xmpp-websocket".into(),
        }
    }

    fn request(change: impl Fn(String) -> String) -> Vec<u8> {
        let plain = "GET /xmpp-websocket HTTP/1.1\r\nHost: chat.example:5280\r\nUpgrade: WebSocket\r\n\
            Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat, xmpp\r\n\r\n";
        change(plain.into()).into_bytes()
    }

    fn status(request: &[u8], origins: &[&str]) -> String {
        match judge(request, &options(origins), false) {
            Answer::Accept(text) | Answer::Refuse(text, _) => text[9..12].into(),
        }
    }

    #[test]
    fn the_example_of_the_rfc() {
        let Answer::Accept(text) = judge(&request(|text| text), &options(&[]), false) else {
            panic!()
        };
        assert!(text.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(text.contains("Sec-WebSocket-Protocol: xmpp\r\n"));
    }

    #[test]
    fn refusals() {
        let with = |from: &'static str, to: &'static str| request(move |text| text.replace(from, to));
        assert_eq!(status(&with("chat, xmpp", "chat"), &[]), "400");
        assert_eq!(status(&with("/xmpp-websocket", "/other"), &[]), "404");
        assert_eq!(status(&with("/xmpp-websocket", "/xmpp-websocket?x=1"), &[]), "101");
        assert_eq!(status(&with("GET", "POST"), &[]), "405");
        assert_eq!(status(&with("Upgrade: WebSocket", "X: y"), &[]), "426");
        assert_eq!(status(&with("Version: 13", "Version: 8"), &[]), "426");
        assert_eq!(status(&with("ZQ==", "Z==="), &[]), "400");
        assert_eq!(status(&with("Host:", "Ghost:"), &[]), "400");
        assert_eq!(status(b"\0\r\n\r\n", &[]), "400");
    }

    #[test]
    fn origins() {
        let from = |origin: &str| {
            let line = format!("\r\nOrigin: {origin}\r\n\r\n");
            request(move |text| text.replace("\r\n\r\n", &line))
        };
        assert_eq!(status(&from("http://chat.example:5280"), &[]), "101");
        assert_eq!(status(&from("http://chat.example"), &[]), "403");
        assert_eq!(status(&from("null"), &[]), "403");
        assert_eq!(status(&from("https://evil.example"), &["https://chat.example"]), "403");
        assert_eq!(status(&from("https://CHAT.example"), &["https://chat.example"]), "101");
        assert_eq!(status(&from("https://evil.example"), &["*"]), "101");
        assert_eq!(
            status(
                &from("https://chat.example\r\nOrigin: https://evil.example"),
                &["https://chat.example"]
            ),
            "403"
        );
    }
}
