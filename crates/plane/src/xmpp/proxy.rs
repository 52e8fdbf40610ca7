//! The PROXY protocol, versions 1 and 2: who is behind the relay that connected (HAProxy's specification, 2.1 and 2.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of a version 2 header, its additional fields included.
const MAX_V2: usize = 16 + 1024;
/// Bytes of a version 1 line.
const MAX_V1: usize = 107;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
pub struct Proxied {
    /// Where the header ends.
    pub length: usize,
    /// The client; `None` when the relay speaks for itself.
    pub client: Option<SocketAddr>,
}

/// Reads a header; `None` when more bytes are needed.
///
/// # Errors
/// When the bytes are not a PROXY header, or a longer one than any relay sends.
pub fn parse(data: &[u8]) -> Result<Option<Proxied>, &'static str> {
    let common = data.len().min(SIGNATURE.len());
    if data[..common] == SIGNATURE[..common] {
        return version_2(data);
    }
    let common = data.len().min(6);
    if data[..common] == b"PROXY "[..common] {
        return version_1(data);
    }
    Err("the connection does not begin with a PROXY header")
}

fn version_1(data: &[u8]) -> Result<Option<Proxied>, &'static str> {
    const MALFORMED: &str = "the PROXY header is malformed";
    let window = &data[..data.len().min(MAX_V1)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if data.len() >= MAX_V1 { Err(MALFORMED) } else { Ok(None) };
    };
    let line = std::str::from_utf8(&data[..end]).map_err(|_| MALFORMED)?;
    let mut parts = line.split(' ').skip(1);
    let family = parts.next().ok_or(MALFORMED)?;
    let client = if family == "UNKNOWN" {
        None
    } else {
        let (source, _, port) = (parts.next(), parts.next(), parts.next());
        let source: IpAddr = source.and_then(|text| text.parse().ok()).ok_or(MALFORMED)?;
        let port: u16 = port.and_then(|text| text.parse().ok()).ok_or(MALFORMED)?;
        if (family == "TCP4") != source.is_ipv4() || !matches!(family, "TCP4" | "TCP6") {
            return Err(MALFORMED);
        }
        Some(SocketAddr::new(source, port))
    };
    Ok(Some(Proxied {
        length: end + 2,
        client,
    }))
}

fn version_2(data: &[u8]) -> Result<Option<Proxied>, &'static str> {
    let Some(header) = data.get(..16) else { return Ok(None) };
    let length = 16 + usize::from(u16::from_be_bytes([header[14], header[15]]));
    if length > MAX_V2 {
        return Err("the PROXY header is too long");
    }
    let local = match header[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err("the PROXY header has an unknown version or command"),
    };
    let Some(body) = data.get(16..length) else {
        return Ok(None);
    };
    let client = match (local, header[13]) {
        (false, 0x11) => {
            let fields: &[u8; 12] = body
                .first_chunk()
                .ok_or("the PROXY header is too short for its family")?;
            let address = Ipv4Addr::new(fields[0], fields[1], fields[2], fields[3]);
            Some(SocketAddr::new(
                address.into(),
                u16::from_be_bytes([fields[8], fields[9]]),
            ))
        }
        (false, 0x21) => {
            let fields: &[u8; 36] = body
                .first_chunk()
                .ok_or("the PROXY header is too short for its family")?;
            let mut octets = [0u8; 16];
            octets.copy_from_slice(&fields[..16]);
            Some(SocketAddr::new(
                Ipv6Addr::from(octets).into(),
                u16::from_be_bytes([fields[32], fields[33]]),
            ))
        }
        _ => None,
    };
    Ok(Some(Proxied { length, client }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_in_every_cut() {
        let line = b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 5222\r\n<stream";
        for cut in 0..43 {
            assert_eq!(parse(&line[..cut]), Ok(None), "{cut}");
        }
        let found = parse(line).unwrap().unwrap();
        assert_eq!(
            found,
            Proxied {
                length: 43,
                client: Some("192.0.2.7:40000".parse().unwrap())
            }
        );
        assert_eq!(parse(b"PROXY UNKNOWN\r\n").unwrap().unwrap().client, None);
        for bad in [
            &b"PROXY TCP4 ::1 ::1 1 2\r\n"[..],
            b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
            b"PROXY \r\n",
            b"GET /",
        ] {
            assert!(parse(bad).is_err());
        }
        assert!(parse(&[b"PROXY ".to_vec(), vec![b'x'; 200]].concat()).is_err());
    }

    #[test]
    fn version_2_families_and_commands() {
        let mut header = SIGNATURE.to_vec();
        header.extend([
            0x21, 0x11, 0, 15, 192, 0, 2, 9, 192, 0, 2, 1, 0x9C, 0x40, 0x14, 0x66, 4, 0, 0,
        ]);
        for cut in 0..header.len() {
            assert_eq!(parse(&header[..cut]), Ok(None), "{cut}");
        }
        let found = parse(&header).unwrap().unwrap();
        assert_eq!(
            found,
            Proxied {
                length: 31,
                client: Some("192.0.2.9:40000".parse().unwrap())
            }
        );
        header[12] = 0x20;
        assert_eq!(parse(&header).unwrap().unwrap().client, None);
        header[12] = 0x11;
        assert!(parse(&header).is_err());
        header[12] = 0x21;
        header[14] = 0xFF;
        assert!(parse(&header).is_err());
        let mut six = SIGNATURE.to_vec();
        six.extend([0x21, 0x21, 0, 36]);
        six.extend(Ipv6Addr::LOCALHOST.octets());
        six.extend(Ipv6Addr::LOCALHOST.octets());
        six.extend([0, 9, 0, 10]);
        assert_eq!(parse(&six).unwrap().unwrap().client, Some("[::1]:9".parse().unwrap()));
    }
}
