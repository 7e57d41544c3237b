//! Where a caller's URL may lead: every special range at its edges, in every spelling.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use onceward::core::attempt::{Ending, Reached};
use onceward::upstream::{
    Door, DoorOptions, Egress, EgressRefusal, Target, Trust, UrlRefusal, parse_ad_hoc,
};
use url::Url;

use crate::misbehave::{Act, Misbehave, OK, post, target};

/// First and last address of each range that is not public, and whether the neighbours before
/// and after it are.
const V4: [(&str, &str, bool, bool); 16] = [
    ("0.0.0.0", "0.255.255.255", false, true),
    ("10.0.0.0", "10.255.255.255", true, true),
    ("100.64.0.0", "100.127.255.255", true, true),
    ("127.0.0.0", "127.255.255.255", true, true),
    ("168.63.129.16", "168.63.129.16", true, true),
    ("169.254.0.0", "169.254.255.255", true, true),
    ("172.16.0.0", "172.31.255.255", true, true),
    ("192.0.0.0", "192.0.0.255", true, true),
    ("192.0.2.0", "192.0.2.255", true, true),
    ("192.88.99.0", "192.88.99.255", true, true),
    ("192.168.0.0", "192.168.255.255", true, true),
    ("198.18.0.0", "198.19.255.255", true, true),
    ("198.51.100.0", "198.51.100.255", true, true),
    ("203.0.113.0", "203.0.113.255", true, true),
    ("224.0.0.0", "239.255.255.255", true, false),
    ("240.0.0.0", "255.255.255.255", false, false),
];

const V6: [(&str, &str, bool, bool); 14] = [
    ("::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false, true),
    ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", false, false),
    ("100::", "100::ffff:ffff:ffff:ffff", false, false),
    ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", true, true),
    ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true, true),
    ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true, true),
    ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", true, true),
    ("4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true, false),
    ("5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false, false),
    ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false, false),
    ("fd00:ec2::254", "fd00:ec2::254", false, false),
    ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false, false),
    ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false, false),
    ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false, false),
];

/// Single addresses, and whether they are public.
const SINGLE: [(&str, bool); 16] = [
    ("1.1.1.1", true),
    ("8.8.8.8", true),
    ("93.184.216.34", true),
    ("169.254.169.254", false),
    ("169.254.170.2", false),
    ("100.100.100.200", false),
    ("192.0.0.192", false),
    ("255.255.255.255", false),
    ("0.0.0.1", false),
    ("127.0.0.1", false),
    ("10.1.2.3", false),
    ("192.168.1.1", false),
    ("172.31.255.255", false),
    ("168.63.129.16", false),
    ("224.0.0.1", false),
    ("203.0.113.7", false),
];

fn v4(text: &str) -> Ipv4Addr {
    text.parse().expect("an IPv4 address")
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("an IPv6 address")
}

/// All IPv4 rows: edges, neighbours, single addresses.
fn rows_v4() -> Vec<(Ipv4Addr, bool)> {
    let mut rows: Vec<_> = SINGLE.iter().map(|(ip, public)| (v4(ip), *public)).collect();
    for (first, last, before, after) in V4 {
        let (first, last) = (v4(first).to_bits(), v4(last).to_bits());
        rows.extend([(first.into(), false), (last.into(), false)]);
        rows.extend(first.checked_sub(1).map(|ip| (ip.into(), before)));
        rows.extend(last.checked_add(1).map(|ip| (ip.into(), after)));
    }
    rows
}

/// The ways to write an IPv4 address as a host, and whether each means that address.
fn spellings(ip: Ipv4Addr) -> Vec<(String, bool)> {
    let text = ip.to_string();
    let (head, tail) = (text.as_bytes()[0], &text[1..]);
    let [a, b, c, d] = ip.octets();
    let bits = ip.to_bits();
    let (high, low) = (bits >> 16, bits & 0xffff);
    vec![
        (format!("{a}.{b}.{c}.{d}"), true),
        (format!("{a}.{b}.{c}.{d}."), true),
        (format!("{bits}"), true),
        (format!("{bits:#o}").replacen("0o", "0", 1), true),
        (format!("0x{bits:x}"), true),
        (format!("0X{bits:X}"), true),
        (format!("0x{a:x}.0x{b:X}.{c}.{d}"), true),
        (format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"), true),
        (format!("{a}.{}", bits & 0xff_ffff), true),
        (format!("{a}.{b}.{low}"), true),
        (format!("{a}。{b}．{c}｡{d}"), true),
        (format!("%{head:02x}{tail}"), true),
        (format!("[::ffff:{a}.{b}.{c}.{d}]"), true),
        (format!("[::ffff:{high:x}:{low:x}]"), true),
        (format!("[::FFFF:{high:X}:{low:X}]"), true),
        (format!("[0:0:0:0:0:ffff:{high:04x}:{low:04x}]"), true),
        (format!("[64:ff9b::{high:x}:{low:x}]"), true),
        (format!("[64:ff9b:1::{high:x}:{low:x}]"), false),
        (format!("[::{high:x}:{low:x}]"), false),
        (format!("[::ffff:0:{high:x}:{low:x}]"), false),
        (format!("[2002:{high:x}:{low:x}::]"), false),
        (format!("[2001:0:808:808::{:x}:{:x}]", !high & 0xffff, !low & 0xffff), false),
        (format!("[fe80::5efe:{high:x}:{low:x}]"), false),
    ]
}

fn admitted(egress: &Egress, url: &str) -> Result<(), EgressRefusal> {
    egress.admits_url(&parse_ad_hoc(url).unwrap_or_else(|e| panic!("{url}: {e}")))
}

fn allowing(ranges: &[&str]) -> Egress {
    Egress::new(ranges.iter().map(|range| range.parse::<IpNet>().expect("a range")).collect())
}

#[test]
fn an_ipv4_address_is_judged_the_same_in_every_spelling() {
    let egress = Egress::default();
    let mut rows = 0;
    for (ip, public) in rows_v4() {
        for (host, means_it) in spellings(ip) {
            let judged = admitted(&egress, &format!("https://{host}/x"));
            assert_eq!(judged.is_ok(), public && means_it, "{host} for {ip}: {judged:?}");
            rows += 1;
        }
    }
    assert!(rows >= 1500, "{rows} rows");
}

#[test]
fn only_global_unicast_ipv6_addresses_are_public() {
    let egress = Egress::default();
    let judge = |ip: u128, public: bool| {
        let ip = Ipv6Addr::from_bits(ip);
        let judged = admitted(&egress, &format!("https://[{ip}]/"));
        assert_eq!(judged.is_ok(), public, "{ip}: {judged:?}");
    };
    for (first, last, before, after) in V6 {
        let (first, last) = (v6(first).to_bits(), v6(last).to_bits());
        judge(first, false);
        judge(last, false);
        if let Some(ip) = first.checked_sub(1) {
            judge(ip, before);
        }
        if let Some(ip) = last.checked_add(1) {
            judge(ip, after);
        }
    }
    for ip in ["2606:4700:4700::1111", "2a00:1450:4001:82a::200e", "2620:fe::fe"] {
        judge(v6(ip).to_bits(), true);
    }
}

#[test]
fn what_readers_of_urls_disagree_about_is_no_url() {
    use UrlRefusal::{Ambiguous, EmptyLabel, Fragment, NotAbsolute, TooLong, Userinfo};
    let long = format!("https://example.com/{}", "a".repeat(2048));
    for (url, refusal) in [
        ("https://127.0.0.1../", EmptyLabel),
        ("https://localhost../", EmptyLabel),
        ("https://a..example/", EmptyLabel),
        ("https://./", EmptyLabel),
        ("", NotAbsolute),
        ("/x", NotAbsolute),
        ("example.com", NotAbsolute),
        ("//example.com/", NotAbsolute),
        ("https:example.com", NotAbsolute),
        ("https:/example.com", NotAbsolute),
        ("https:///example.com", NotAbsolute),
        ("https://", NotAbsolute),
        ("ftp://example.com/", NotAbsolute),
        ("file:///etc/passwd", NotAbsolute),
        ("gopher://example.com/", NotAbsolute),
        ("javascript://example.com/", NotAbsolute),
        ("https://a@example.com/", Userinfo),
        ("https://a:b@example.com/", Userinfo),
        ("https://@example.com/", Userinfo),
        ("https://example.com@127.0.0.1/", Userinfo),
        ("https://example.com:443@127.0.0.1/", Userinfo),
        ("https://example.com\\@127.0.0.1/", Ambiguous),
        ("https:\\\\example.com/", Ambiguous),
        ("https://example.com\\.evil.example/", Ambiguous),
        ("https://exa\tmple.com/", Ambiguous),
        ("https://127.0.0\n.1/", Ambiguous),
        ("https://example.com/a\r\nb", Ambiguous),
        (" https://example.com/", Ambiguous),
        ("https://example.com/ ", Ambiguous),
        ("https://example.com/a b", Ambiguous),
        ("https://example.com/\u{0}", Ambiguous),
        ("https://example.com/\u{a0}", Ambiguous),
        ("https://example.com/#here", Fragment),
        (long.as_str(), TooLong),
    ] {
        assert_eq!(parse_ad_hoc(url), Err(refusal), "{url:?}");
    }
    for url in [
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://[::1/",
        "https://1.2.3.4.5/",
        "https://256.0.0.1/",
        "https://0x100000000/",
        "https://exa<mple.com/",
        "https://example.com:65536/",
        "https://example.com:x/",
        "https://%00/",
    ] {
        assert!(matches!(parse_ad_hoc(url), Err(UrlRefusal::Invalid(_))), "{url:?}");
    }
}

#[test]
fn callers_reach_public_upstreams_by_https_on_its_ports() {
    let egress = Egress::default();
    for url in [
        "https://example.com/",
        "HTTPS://EXAMPLE.COM/x?y=@",
        "https://example.com:443/",
        "https://example.com:8443/",
        "https://bücher.example/",
        "https://93.184.216.34/",
    ] {
        assert_eq!(admitted(&egress, url), Ok(()), "{url}");
    }
    for url in ["http://example.com/", "http://93.184.216.34/", "http://example.com:443/"] {
        assert!(matches!(admitted(&egress, url), Err(EgressRefusal::Scheme(_))), "{url}");
    }
    for url in ["https://example.com:22/", "https://example.com:80/", "https://93.184.216.34:8080/"]
    {
        assert!(matches!(admitted(&egress, url), Err(EgressRefusal::Port(..))), "{url}");
    }
}

#[test]
fn localhost_is_judged_by_its_name() {
    for name in ["localhost", "LOCALHOST", "localhost.", "api.localhost", "ｌocalhost"] {
        let https = format!("https://{name}/");
        let judged = admitted(&Egress::default(), &https);
        assert!(matches!(judged, Err(EgressRefusal::Private(_))), "{name}: {judged:?}");
        let http = format!("http://{name}:3000/");
        assert_eq!(admitted(&allowing(&["127.0.0.1/32"]), &http), Ok(()));
        assert_eq!(admitted(&allowing(&["::1/128"]), &http), Ok(()));
        assert!(admitted(&allowing(&["10.0.0.0/8"]), &http).is_err());
    }
}

#[test]
fn a_refusal_names_the_mend() {
    let refusal = admitted(&Egress::default(), "http://localhost:3000/").expect_err("private");
    assert!(refusal.to_string().contains("`onceward serve --allow localhost:3000`"), "{refusal}");
    assert!(refusal.to_string().contains("`[egress] allow`"), "{refusal}");
    let refusal = admitted(&Egress::default(), "https://10.0.0.1/").expect_err("private");
    assert!(refusal.to_string().contains("serve --allow 10.0.0.1:443"), "{refusal}");
}

#[test]
fn what_the_operator_opened_is_open_for_http_and_any_port() {
    let egress = allowing(&["10.2.0.0/16", "fd12::/16"]);
    for url in [
        "http://10.2.0.0/",
        "https://10.2.255.255:22/",
        "http://[::ffff:10.2.3.4]:8080/",
        "http://[fd12::1]/",
    ] {
        assert_eq!(admitted(&egress, url), Ok(()), "{url}");
    }
    for url in [
        "http://10.1.255.255/",
        "http://10.3.0.0/",
        "https://[fd13::]/",
        "https://[64:ff9b::a02:1]/",
        "http://1.1.1.1/",
    ] {
        assert!(admitted(&egress, url).is_err(), "{url}");
    }
    // A name may lead there; the address that is dialled decides.
    let url = Url::parse("http://internal.example:8080/").expect("a URL");
    assert_eq!(egress.admits_url(&url), Ok(()));
    assert_eq!(egress.admits(&url, IpAddr::V4(v4("10.2.0.1"))), Ok(()));
    assert!(egress.admits(&url, IpAddr::V4(v4("93.184.216.34"))).is_err());
}

#[test]
fn nothing_opens_link_local_and_metadata_addresses() {
    let egress = allowing(&["0.0.0.0/0", "::/0"]);
    for ip in ["169.254.169.254", "169.254.0.1", "100.100.100.200", "192.0.0.192", "168.63.129.16"]
    {
        for (host, _) in spellings(v4(ip)) {
            let judged = admitted(&egress, &format!("http://{host}/"));
            assert!(matches!(judged, Err(EgressRefusal::Never(_))), "{host}: {judged:?}");
        }
    }
    for ip in ["fd00:ec2::254", "fd20:ce::254", "fe80::1"] {
        assert!(admitted(&egress, &format!("http://[{ip}]/")).is_err(), "{ip}");
    }
    assert_eq!(admitted(&egress, "http://127.0.0.1/"), Ok(()));
}

fn by_a_caller(base: &str) -> Target {
    Target { trust: Trust::Caller, ..target(base) }
}

fn door(egress: Egress) -> Door {
    Door::new(egress, &DoorOptions::default()).expect("a door")
}

#[tokio::test]
async fn a_caller_does_not_reach_a_private_address_however_it_is_named() {
    let upstream = Misbehave::always([Act::Read, Act::Write(OK.as_bytes())]).await;
    let door = door(Egress::default());
    let port = upstream.address.port();
    for host in ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:7f00:1]"] {
        for scheme in ["http", "https"] {
            let target = by_a_caller(&format!("{scheme}://{host}:{port}/"));
            let failure = post(&door, target, b"").await.expect_err("private");
            assert_eq!((failure.ending, failure.permanent), (Ending::Unsent, true), "{failure:?}");
            assert_eq!(failure.reached, Reached::Nothing, "refused before it was dialled");
        }
    }
    assert_eq!(upstream.arrived().len(), 0);
}

#[tokio::test]
async fn a_caller_reaches_what_the_operator_opened() {
    let upstream = Misbehave::always([Act::Read, Act::Write(OK.as_bytes())]).await;
    let door = door(allowing(&["127.0.0.0/8"]));
    let target = by_a_caller(&format!("http://{}/", upstream.address));
    assert_eq!(post(&door, target, b"").await, Ok((200, b"ok".to_vec())));
}

#[tokio::test]
async fn a_caller_does_not_get_the_operators_idle_connection() {
    let upstream = Misbehave::always([Act::Read, Act::Write(OK.as_bytes()), Act::Hang]).await;
    let door = door(Egress::default());
    post(&door, upstream.target(), b"").await.expect("an answer");
    assert_eq!(door.idle_connections(), 1);
    let target = by_a_caller(&format!("http://{}/", upstream.address));
    let failure = post(&door, target, b"").await.expect_err("private");
    assert_eq!((failure.ending, failure.permanent), (Ending::Unsent, true));
    assert_eq!(upstream.arrived().len(), 1);
}
