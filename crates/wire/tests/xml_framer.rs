//! The framer against the rules of RFC 6120 §11, XML 1.0 and Namespaces in XML: what passes, what is refused and how.

use moim_wire::xml::{ns, serialise, Condition, Element, Form, Framer, Limits, XmlEvent};

const HEADER: &str =
    "<stream:stream to='x' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";

fn text_of(event: XmlEvent) -> String {
    match event {
        XmlEvent::Open(header) => {
            let attrs: Vec<String> = header
                .attrs
                .iter()
                .map(|attr| format!("{}={}", attr.key, attr.value))
                .collect();
            format!("open {} {}", header.default_ns, attrs.join(" "))
        }
        XmlEvent::Element(element, _) => canonical(&element),
        XmlEvent::Close => "close".into(),
    }
}

fn canonical(element: &Element) -> String {
    let mut out = Vec::new();
    serialise(
        &mut out,
        element,
        Form {
            default_ns: ns::CLIENT,
            stream_prefix: false,
            server: false,
        },
    );
    String::from_utf8(out).unwrap()
}

fn run(mut framer: Framer, input: &[u8], step: usize) -> Result<Vec<String>, Condition> {
    let mut seen = Vec::new();
    for mut piece in input.chunks(step) {
        while let Some(event) = framer.next(&mut piece).map_err(|error| error.condition)? {
            seen.push(text_of(event));
        }
        assert!(piece.is_empty());
    }
    Ok(seen)
}

/// Stanzas inside a stream, which must not depend on how the bytes are cut.
fn stream(input: impl AsRef<[u8]>) -> Result<Vec<String>, Condition> {
    let whole = [HEADER.as_bytes(), input.as_ref()].concat();
    let at_once = run(Framer::stream(Limits::bytes(10_000)), &whole, whole.len());
    for step in [1, 2, 3, 5, 17] {
        assert_eq!(
            run(Framer::stream(Limits::bytes(10_000)), &whole, step),
            at_once,
            "in pieces of {step}"
        );
    }
    at_once.map(|mut seen| seen.split_off(1))
}

fn one(input: impl AsRef<[u8]>) -> String {
    let mut seen = stream(input).unwrap();
    assert_eq!(seen.len(), 1);
    seen.remove(0)
}

fn refused(input: impl AsRef<[u8]>) -> Condition {
    let input = input.as_ref();
    match stream(input) {
        Err(condition) => condition,
        Ok(seen) => panic!("{:?} passed as {seen:?}", String::from_utf8_lossy(input)),
    }
}

fn header(input: impl AsRef<[u8]>) -> Result<Vec<String>, Condition> {
    run(Framer::stream(Limits::bytes(10_000)), input.as_ref(), 1)
}

#[test]
fn a_stream_from_header_to_end() {
    let input =
        format!("<?xml version='1.0'?>\n{HEADER} <presence/>\n<iq id=\"1\"><q xmlns='u'/></iq> </stream:stream> junk");
    let seen = header(input).unwrap();
    assert_eq!(
        seen,
        [
            "open jabber:client to=x version=1.0",
            "<presence/>",
            "<iq id='1'><q xmlns='u'/></iq>",
            "close"
        ]
    );
}

#[test]
fn what_the_text_means() {
    assert_eq!(
        one("<a>&lt;&gt;&amp;&apos;&quot;&#65;&#x41;&#xAC00;</a>"),
        "<a>&lt;&gt;&amp;'\"AA가</a>"
    );
    assert_eq!(
        one("<a>x<![CDATA[<b>&amp;]]]]><![CDATA[>]]>y</a>"),
        "<a>x&lt;b&gt;&amp;amp;]]&gt;y</a>"
    );
    assert_eq!(one("<a>1\r\n2\r3\n4&#13;5</a>"), "<a>1\n2\n3\n4&#xD;5</a>");
    assert_eq!(one("<a b='1\t2\r\n3\n4&#10;5'/>"), "<a b='1 2 3 4&#xA;5'/>");
    assert_eq!(one("<a>]] > ]>]</a>"), "<a>]] &gt; ]&gt;]</a>");
    assert_eq!(one("<a b=\"'\" c='\"'/>"), "<a b='&apos;' c='\"'/>");
    assert_eq!(one("<a  b = 'c'\n d='e' ></a >"), "<a b='c' d='e'/>");
    assert_eq!(
        one("<메시지 속성='값'>본문 🎉</메시지>"),
        "<메시지 속성='값'>본문 🎉</메시지>"
    );
}

#[test]
fn namespaces() {
    assert_eq!(
        one("<a xmlns='u'><b/><c xmlns=''><d/></c></a>"),
        "<a xmlns='u'><b/><c xmlns=''><d/></c></a>"
    );
    assert_eq!(
        one("<p:a xmlns:p='u'><b/><p:c/></p:a>"),
        "<a xmlns='u'><b xmlns='jabber:client'/><c/></a>"
    );
    assert_eq!(
        one("<a p:b='1' xmlns:p='u' b='2' xml:lang='ko'/>"),
        "<a xmlns:n0='u' n0:b='1' b='2' xml:lang='ko'/>"
    );
    assert_eq!(one("<a xmlns:stream='u'><stream:b/></a>"), "<a><b xmlns='u'/></a>");
    assert_eq!(one("<a xmlns:xml='http://www.w3.org/XML/1998/namespace'/>"), "<a/>");
    assert_eq!(one("<xml:a/>"), "<xml:a/>");
    assert_eq!(
        one("<a><stream:b/></a>"),
        "<a><stream:b xmlns:stream='http://etherx.jabber.org/streams'/></a>",
        "an element of the streams namespace inside a stanza stays just that"
    );
    for bad in [
        "<p:a/>",
        "<a p:b='1'/>",
        "<a xmlns:p=''/>",
        "<a xmlns:xml='u'/>",
        "<a xmlns:xmlns='u'/>",
        "<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>",
        "<a xmlns='http://www.w3.org/XML/1998/namespace'/>",
        "<a xmlns:p='http://www.w3.org/2000/xmlns/'/>",
        "<a xmlns='http://www.w3.org/2000/xmlns/'/>",
        "<a xmlns='u' xmlns='v'/>",
        "<a xmlns:p='u' xmlns:p='v'/>",
        "<a xmlns:p='u' xmlns:q='u' p:x='' q:x=''/>",
        "<a xmlns:='u'/>",
        "<a xmlns:p:q='u'/>",
        "<xmlns:a/>",
        "<a><b xmlns:p='u'/><p:c/></a>",
    ] {
        assert_eq!(refused(bad), Condition::NotWellFormed, "{bad}");
    }
}

#[test]
fn what_is_not_well_formed() {
    for bad in [
        "<a></b>",
        "<a><b></a></b>",
        "<a x></a>",
        "<a x=1/>",
        "<a x='1' x='2'/>",
        "<a x='1'y='2'/>",
        "<a x='<'/>",
        "< a/>",
        "<a/ >",
        "<a / >",
        "<1/>",
        "<-a/>",
        "<a:b:c/>",
        "<:a/>",
        "<a:/>",
        "<a =''/>",
        "</a>",
        "<a></a x='1'>",
        "<a>&</a>",
        "<a>& </a>",
        "<a>&;</a>",
        "<a>&#;</a>",
        "<a>&#x;</a>",
        "<a>&#0;</a>",
        "<a>&#xD800;</a>",
        "<a>&#xFFFE;</a>",
        "<a>&#x110000;</a>",
        "<a>&#+1;</a>",
        "<a>]]></a>",
        "<a>\u{0}</a>",
        "<a>\u{1}</a>",
        "<a b='\u{1f}'/>",
        "<a>\u{FFFF}</a>",
        "<a b='\u{FFFE}'/>",
        "<a\u{0}/>",
        "<a><![CDATA[\u{8}]]></a>",
        "<![CDATA[x]]>",
        "<!>",
        "<a><!x></a>",
        "<>",
        "<a<b/>",
        "<a b='c'<d/>",
        "<×/>",
        "<a ×=''/>",
        "</stream:stream x='1'>",
        "</stream>",
        "<a></ a>",
        "<\u{2028}/>",
    ] {
        assert_eq!(refused(bad), Condition::NotWellFormed, "{bad}");
    }
}

#[test]
fn what_is_restricted() {
    for bad in [
        "<!-- x -->",
        "<a><!-- x --></a>",
        "<!DOCTYPE a>",
        "<a><!DOCTYPE a></a>",
        "<?pi x?>",
        "<a><?pi x?></a>",
        "<?xml version='1.0'?>",
        "<a>&nbsp;</a>",
        "<a b='&lol9;'/>",
        "<a>&verylongentityname;</a>",
        "<a>&a.b;</a>",
    ] {
        assert_eq!(refused(bad), Condition::RestrictedXml, "{bad}");
    }
    assert_eq!(
        header("<!DOCTYPE lolz [<!ENTITY lol 'lol'>]>").unwrap_err(),
        Condition::RestrictedXml
    );
    assert_eq!(
        header("<?xml-stylesheet href='x'?>").unwrap_err(),
        Condition::RestrictedXml
    );
    assert_eq!(
        header("<?xml version='1.0'?><?xml version='1.0'?>").unwrap_err(),
        Condition::RestrictedXml
    );
}

#[test]
fn encodings() {
    for bad in [
        &b"<a>\x80</a>"[..],
        b"<a>\xC0\xAF</a>",
        b"<a b='\xF8'/>",
        b"<\xFF/>",
        b"<a>\xED\xA0\x80</a>",
        b"<a>\xE3\x81</a>",
    ] {
        assert_eq!(refused(bad), Condition::UnsupportedEncoding, "{bad:?}");
    }
    assert!(header(format!("\u{FEFF}<?xml version='1.0' encoding='utf-8'?>{HEADER}")).is_ok());
    assert!(header(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone='yes' ?>{HEADER}"
    ))
    .is_ok());
    for bad in [
        &b"<?xml version='1.0' encoding='latin1'?>"[..],
        b"\xFE\xFF\0<",
        b"\xFF\xFE<\0",
        b"\0<",
        b"\xEF\xBB<",
    ] {
        assert_eq!(header(bad).unwrap_err(), Condition::UnsupportedEncoding, "{bad:?}");
    }
    for bad in [
        "<?xml?>",
        "<?xml ?>",
        "<?xml version='1.1'?>",
        "<?xml encoding='utf-8'?>",
        "<?xml version='1.0'encoding='utf-8'?>",
        "<?xml encoding='utf-8' version='1.0'?>",
        "<?xml version='1.0' version='1.0'?>",
        "<?xml version='1.0' x='y'?>",
        "<?xml version='1.0?>",
    ] {
        let condition = header(bad).unwrap_err();
        assert!(
            matches!(condition, Condition::NotWellFormed | Condition::RestrictedXml),
            "{bad}: {condition:?}"
        );
    }
}

#[test]
fn headers() {
    let prefixed =
        "<s:stream xmlns:s='http://etherx.jabber.org/streams' xmlns='jabber:server' xmlns:db='jabber:server:dialback'>";
    let seen = header(format!("{prefixed}<db:result/></s:stream>")).unwrap();
    assert_eq!(
        seen,
        [
            "open jabber:server ",
            "<result xmlns='jabber:server:dialback'/>",
            "close"
        ]
    );
    for (bad, condition) in [
        ("<message xmlns='jabber:client'/>", Condition::InvalidNamespace),
        ("<stream/>", Condition::InvalidNamespace),
        ("<stream:stream xmlns='jabber:client'>", Condition::BadNamespacePrefix),
        (
            "<stream:stream xmlns:stream='http://example.org/'>",
            Condition::InvalidNamespace,
        ),
        (
            "<stream:features xmlns:stream='http://etherx.jabber.org/streams'/>",
            Condition::BadFormat,
        ),
        (
            "<stream:stream xmlns:stream='http://etherx.jabber.org/streams'/>",
            Condition::BadFormat,
        ),
        ("hello", Condition::BadFormat),
        ("\u{1}", Condition::NotWellFormed),
        ("GET / HTTP/1.1", Condition::BadFormat),
        ("</stream:stream>", Condition::NotWellFormed),
    ] {
        assert_eq!(header(bad).unwrap_err(), condition, "{bad}");
    }
    let long = format!("<stream:stream x='{}", "y".repeat(5000));
    assert_eq!(header(long).unwrap_err(), Condition::PolicyViolation);
}

#[test]
fn smuggling() {
    assert_eq!(refused(HEADER), Condition::BadFormat, "a stream inside the stream");
    assert_eq!(refused("text<a/>"), Condition::BadFormat);
    assert_eq!(refused("&lt;"), Condition::BadFormat);
    // The prefix of the stream can be bound anew inside a stanza; its end tag does not end the stream.
    assert_eq!(
        one("<a xmlns:stream='u'><stream:stream></stream:stream></a>"),
        "<a><stream xmlns='u'/></a>"
    );
    let seen = stream("<stream:stream xmlns:stream='u'></stream:stream></stream:stream><a/>").unwrap();
    assert_eq!(
        seen,
        ["<stream xmlns='u'/>", "close"],
        "nothing comes after the end of the stream"
    );
}

#[test]
fn bounds() {
    let too_big = format!("<a>{}</a>", "x".repeat(10_000));
    assert_eq!(refused(too_big), Condition::PolicyViolation);
    assert!(
        stream(format!("{}<a>{}</a>", " ".repeat(20_000), "x".repeat(9_993))).is_ok(),
        "white space counts for nothing"
    );
    assert_eq!(
        refused(format!("<a>{}</a>", "x".repeat(9_994))),
        Condition::PolicyViolation
    );
    assert!(stream(format!("{}{}", "<a>".repeat(96), "</a>".repeat(96))).is_ok());
    assert_eq!(refused("<a>".repeat(97)), Condition::PolicyViolation);
    let attrs = |count: usize| (0..count).map(|index| format!(" a{index}=''")).collect::<String>();
    assert!(stream(format!("<a{}/>", attrs(48))).is_ok());
    assert_eq!(refused(format!("<a{}/>", attrs(49))), Condition::PolicyViolation);
    assert!(stream(format!("<{}/>", "n".repeat(256))).is_ok());
    assert_eq!(refused(format!("<{}", "n".repeat(257))), Condition::PolicyViolation);
    assert_eq!(refused(format!("<a {}", "n".repeat(257))), Condition::PolicyViolation);
    let declarations = |count: usize| {
        (0..count)
            .map(|index| format!(" xmlns:p{index}='u'"))
            .collect::<String>()
    };
    assert_eq!(
        refused(format!("<a{}><b{}/></a>", declarations(40), declarations(40))),
        Condition::PolicyViolation
    );
    assert!(
        stream(format!("<a{}/><b{}/>", declarations(40), declarations(40))).is_ok(),
        "forgotten with their element"
    );
    assert_eq!(
        refused(format!("<a>{}</a>", "<b/>".repeat(1300))),
        Condition::PolicyViolation
    );
}

#[test]
fn what_is_too_long_is_so_before_anything_that_follows() {
    let long = [
        b"<message><body>",
        "x".repeat(10_100).as_bytes(),
        b"\xFF</body></message>",
    ]
    .concat();
    assert_eq!(refused(long), Condition::PolicyViolation);
}

#[test]
fn a_namespace_cannot_be_multiplied() {
    let long = "u".repeat(4000);
    let bomb = format!("<a xmlns:p='{long}'>{}</a>", "<p:b/>".repeat(500));
    assert_eq!(refused(bomb), Condition::PolicyViolation);
    let bomb = format!("<a xmlns:p='{long}'>{}</a>", "<b p:c=''/>".repeat(300));
    assert_eq!(refused(bomb), Condition::PolicyViolation);
}

#[test]
fn documents() {
    let mut framer = Framer::document(Limits::bytes(1000));
    for message in [
        "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>",
        " <message><body>x</body></message> ",
    ] {
        let mut rest = message.as_bytes();
        assert!(matches!(framer.next(&mut rest), Ok(Some(XmlEvent::Element(..)))));
        assert!(matches!(framer.next(&mut rest), Ok(None)));
        framer.end_document().unwrap();
    }
    let mut framer = Framer::document(Limits::bytes(1000));
    assert!(framer.end_document().is_err());
    for (message, condition) in [
        ("<a/><b/>", Condition::BadFormat),
        ("<a/>x", Condition::BadFormat),
        ("</a>", Condition::NotWellFormed),
    ] {
        assert_eq!(
            run(Framer::document(Limits::bytes(1000)), message.as_bytes(), 1).unwrap_err(),
            condition
        );
    }
    let mut framer = Framer::document(Limits::bytes(1000));
    assert!(matches!(framer.next(&mut &b"<a>"[..]), Ok(None)));
    assert_eq!(framer.end_document().unwrap_err().condition, Condition::NotWellFormed);
    assert!(framer.next(&mut &b"</a>"[..]).is_err(), "it stays failed");
}

#[test]
fn a_restarted_framer_knows_nothing_of_the_past() {
    let mut framer = Framer::stream(Limits::bytes(1000));
    let mut rest = HEADER.as_bytes();
    framer.next(&mut rest).unwrap();
    framer.restart();
    assert!(matches!(framer.next(&mut &b"<?xml version='1.0'?>"[..]), Ok(None)));
    let mut rest = HEADER.as_bytes();
    assert!(matches!(framer.next(&mut rest), Ok(Some(XmlEvent::Open(_)))));
}
