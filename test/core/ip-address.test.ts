// Which addresses are on the internet. Everything else, in any notation, is not.
import fc from "fast-check";
import { expect, test } from "vitest";
import { isPublicAddress } from "../../src/core/text/ip-address.ts";

test.each([
  ...["1.1.1.1", "8.8.8.8", "93.184.216.34", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0"],
  ...["169.253.255.255", "192.167.255.255", "198.17.255.255", "198.20.0.0", "223.255.255.255", "11.0.0.0"],
  ...["2606:4700::1111", "2a00:1450:4001:813::200e", "2001:200::1", "64:ff9b::8.8.8.8", "64:ff9b::808:808"],
])("%s is public", (address) => {
  expect(isPublicAddress(address)).toBe(true);
});

test.each([
  ...["0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254"],
  ...["169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1"],
  ...["198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.9", "224.0.0.1", "240.0.0.1", "255.255.255.255"],
  ...[
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:7f00:1",
    "::ffff:0:8.8.8.8",
  ],
  ...["64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b:1::8.8.8.8", "100::1", "5f00::1"],
  ...["2001::1", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::", "3fff::1"],
  ...["fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "4000::1"],
])("%s is not public", (address) => {
  expect(isPublicAddress(address)).toBe(false);
});

test.each([
  ...[
    "",
    "localhost",
    "example.com",
    "1",
    "1.1",
    "1.1.1",
    "1.1.1.1.",
    "01.1.1.1",
    "0x1.1.1.1",
    "1.1.1.256",
    "1.1.1.1.1",
  ],
  ...[
    "134744072",
    "0x08080808",
    "010.8.8.8",
    " 8.8.8.8",
    "8.8.8.8 ",
    "8.8.8.8:443",
    "[2606::1]",
    "2606:::1",
    "2606::1::2",
  ],
  ...[
    "2606:4700",
    "1:2:3:4:5:6:7:8:9",
    "2606::12345",
    "2606::g",
    "64:ff9b::8.8.8",
    "64:ff9b::8.8.8.256",
    "８.８.８.８",
    "2606::1/64",
  ],
])("%j is no address", (text) => {
  expect(isPublicAddress(text)).toBe(false);
});

test("an IPv4 address in the form of another protocol is never more public than itself", () => {
  const byte = fc.integer({ min: 0, max: 255 });
  fc.assert(
    fc.property(byte, byte, byte, byte, (a, b, c, d) => {
      const v4 = `${a}.${b}.${c}.${d}`;
      expect(isPublicAddress(`64:ff9b::${v4}`)).toBe(isPublicAddress(v4));
      for (const prefix of ["::", "::ffff:", "64:ff9b:1::"]) expect(isPublicAddress(prefix + v4)).toBe(false);
    }),
  );
});
