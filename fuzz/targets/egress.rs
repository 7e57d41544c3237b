//! Where a caller's URL may lead: judged here a second time, by Python's `ipaddress` over a table
//! of addresses, and by the reading of the URL that an attacker hopes for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use onceward::upstream::{AD_HOC_URL_BYTES_MAX, Egress, parse_ad_hoc};
use onceward_fuzz::Fuzz;
use onceward_fuzz::figures::Figures;
use url::{Host, Url};

const WORDS: &[&str] = &[
    "https://",
    "http://",
    "HTTPS:",
    "//",
    "@",
    "[",
    "]",
    ":443",
    ":8443",
    ":80",
    "#",
    "?",
    "\\",
    "%2e",
    "%00",
    "。",
    "．",
    "127.0.0.1",
    "127.1",
    "0x7f.1",
    "0177.0.0.1",
    "2130706433",
    "0",
    "localhost",
    "localhost.",
    "a.localhost",
    "169.254.169.254",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:7f00:1::]",
    "[fe80::1%25eth0]",
    "[fec0::1]",
    "metadata.google.internal",
    "xn--",
    "ⓛocalhost",
    "１２７.0.0.1",
    "example.com",
    "8.8.8.8",
    "[2606:4700::1111]",
];

/// What Python calls global, and is no place for a caller's request all the same.
fn is_stricter_here(ip: IpAddr) -> bool {
    let v4 = |ip: Ipv4Addr| {
        let o = ip.octets();
        // A platform of Azure's; relays of 6to4; protocol assignments that are anycast; multicast;
        // addresses that carriers share, which Python calls global where they are mapped.
        o == [168, 63, 129, 16]
            || o[..3] == [192, 88, 99]
            || o[..3] == [192, 0, 0]
            || ip.is_multicast()
            || (o[0] == 100 && o[1] & 0xc0 == 64)
    };
    // A mapped address is the IPv4 one that it is followed to.
    match ip.to_canonical() {
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) => {
            let s = ip.segments();
            let low = Ipv4Addr::from_bits(u32::from(s[6]) << 16 | u32::from(s[7]));
            // NAT64 is judged by what it leads to.
            if s[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
                return !is_plain_global_v4(low) || v4(low);
            }
            // Outside of global unicast; Teredo, ORCHID and other assignments; 6to4; documentation.
            s[0] & 0xe000 != 0x2000
                || (s[0] == 0x2001 && s[1] < 0x200)
                || s[0] == 0x2002
                || (s[0] == 0x3fff && s[1] < 0x1000)
        }
    }
}

/// What the standard library can tell without its unstable half.
fn is_plain_global_v4(ip: Ipv4Addr) -> bool {
    let o = ip.octets();
    !(o[0] == 0
        || o[0] >= 240
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || ip.is_multicast()
        || (o[0] == 100 && o[1] & 0xc0 == 64)
        || (o[0] == 198 && o[1] & 0xfe == 18)
        || o[..3] == [192, 0, 0])
}

fn url_to(host: &str) -> Url {
    parse_ad_hoc(&format!("https://{host}/x")).expect("an address is a host")
}

#[test]
fn an_address_is_let_through_only_where_another_judge_calls_it_global() {
    let began = std::time::Instant::now();
    let table = include_str!("../data/addresses.tsv");
    let egress = Egress::default();
    let (mut rows, mut admitted) = (0, 0);
    let mut differ = Vec::new();
    for row in table.lines().filter(|line| !line.starts_with('#')) {
        let cells: Vec<&str> = row.split('\t').collect();
        let ip: IpAddr = cells[0].parse().expect("an address");
        let is_global = cells[2] == "1" && cells[3] == "0";
        rows += 1;
        for spelling in [cells[0], cells[1]] {
            let host = if ip.is_ipv6() { format!("[{spelling}]") } else { spelling.to_owned() };
            let url = url_to(&host);
            let through = egress.admits_url(&url).is_ok();
            assert_eq!(through, egress.admits(&url, ip).is_ok(), "{row}: by name and by address");
            admitted += u64::from(through);
            if through != (is_global && !is_stricter_here(ip)) {
                differ.push(format!("{row}: let through: {through}"));
            }
        }
    }
    Figures::new("egress", 0, began).write(
        &[("addresses", rows), ("spellings", rows * 2), ("let_through", admitted)],
        differ.len() as u64,
    );
    assert!(rows > 600, "{rows}");
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
fn no_text_leads_to_an_address_that_is_not_public() {
    let egress = Egress::default();
    Fuzz::new("egress", 10_000, WORDS).bytes_max(AD_HOC_URL_BYTES_MAX + 8).run(|input| {
        let Ok(text) = std::str::from_utf8(input) else { return None };
        let url = parse_ad_hoc(text).ok()?;
        assert!(matches!(url.scheme(), "http" | "https"));
        assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());
        let again = Url::parse(url.as_str()).expect("it reads back");
        assert_eq!(again, url, "who reads it again reads the same");
        let through = egress.admits_url(&url).is_ok();
        if through {
            assert_eq!(url.scheme(), "https");
            match url.host().expect("a host") {
                Host::Ipv4(ip) => assert!(is_plain_global_v4(ip), "{ip}"),
                Host::Ipv6(ip) => assert!(is_plain_global_v6(ip), "{ip}"),
                Host::Domain(name) => {
                    assert!(!name.contains(".."), "{name}");
                    let name = format!(".{}", name.trim_end_matches('.'));
                    assert!(!name.ends_with(".localhost"), "{name}");
                    assert!(name[1..].parse::<IpAddr>().is_err(), "{name}");
                }
            }
        }
        Some((
            through,
            url.scheme().len(),
            url.host().map(|host| match host {
                Host::Ipv4(_) => 4,
                Host::Ipv6(_) => 6,
                Host::Domain(_) => 0,
            }),
        ))
    });
}

fn is_plain_global_v6(ip: Ipv6Addr) -> bool {
    match ip.to_ipv4_mapped() {
        Some(ip) => is_plain_global_v4(ip),
        None => !is_stricter_here(ip.into()),
    }
}
