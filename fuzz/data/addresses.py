"""Writes addresses.tsv: addresses at the edges of every special range and at random, and what
Python's ipaddress says of each. Run it as: python3 fuzz/data/addresses.py"""

import ipaddress
import pathlib
import random
import sys

RANGES = """
0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 100.100.100.200/32 127.0.0.0/8 168.63.129.16/32 169.254.0.0/16
172.16.0.0/12 192.0.0.0/24 192.0.0.192/32 192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24
192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
::/128 ::1/128 ::/96 ::ffff:0:0/96 ::ffff:0:0:0/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 2000::/3 2001::/23
2001::/32 2001:1::1/128 2001:2::/48 2001:3::/32 2001:4:112::/48 2001:10::/28 2001:20::/28 2001:db8::/32
2002::/16 2620:4f:8000::/48 3fff::/20 5f00::/16 fc00::/7 fd00:ec2::254/128 fd20:ce::254/128 fe80::/10
fec0::/10 ff00::/8
""".split()

V4 = [ipaddress.ip_network(text) for text in RANGES if ":" not in text]
chance = random.Random(20261126)
addresses = set()

for text in RANGES:
    network = ipaddress.ip_network(text)
    top = 2 ** network.max_prefixlen - 1
    first, last = int(network.network_address), int(network.broadcast_address)
    inside = [chance.randint(first, last) for _ in range(4)]
    for number in [first - 1, first, first + 1, last - 1, last, last + 1, *inside]:
        if 0 <= number <= top:
            kind = ipaddress.IPv4Address if network.version == 4 else ipaddress.IPv6Address
            addresses.add(kind(number))

# Every special IPv4 address in every form in which IPv6 can carry it.
for network in V4:
    for number in [int(network.network_address), int(network.broadcast_address), int(network.network_address) - 1]:
        number %= 2**32
        for prefix in [0, 0xFFFF << 32, 0xFFFF << 48, 0x64FF9B << 96]:
            addresses.add(ipaddress.IPv6Address(prefix | number))
        addresses.add(ipaddress.IPv6Address(0x2002 << 112 | number << 80 | 1))
        addresses.add(ipaddress.IPv6Address(0x20010000 << 96 | (number ^ 0xFFFFFFFF)))

for _ in range(300):
    addresses.add(ipaddress.IPv4Address(chance.getrandbits(32)))
    addresses.add(ipaddress.IPv6Address(chance.getrandbits(128)))
    addresses.add(ipaddress.IPv6Address(0x2 << 124 | chance.getrandbits(124)))

rows = sorted(addresses, key=lambda address: (address.version, int(address)))
lines = [f"# ipaddress of Python {sys.version.split()[0]}: address, as written out in full, is_global, is_multicast"]
for address in rows:
    spelt = address.exploded.upper() if address.version == 6 else str(address)
    lines.append(f"{address}\t{spelt}\t{int(address.is_global)}\t{int(address.is_multicast)}")
target = pathlib.Path(__file__).with_suffix(".tsv")
target.write_text("\n".join(lines) + "\n")
print(f"{target}: {len(rows)} addresses")
