// A zip of files that are stored as they are: label maps are compressed already.

const TABLE = new Uint32Array(256).map((_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

function checksum(bytes) {
  let sum = 0xffffffff;
  for (const byte of bytes) sum = TABLE[(sum ^ byte) & 255] ^ (sum >>> 8);
  return ~sum >>> 0;
}

/** Fields of a header: [bytes, value] in little-endian order. */
function header(fields) {
  const view = new DataView(new ArrayBuffer(fields.reduce((sum, [size]) => sum + size, 0)));
  let place = 0;
  for (const [size, value] of fields) {
    if (size === 2) view.setUint16(place, value, true);
    else view.setUint32(place, value, true);
    place += size;
  }
  return new Uint8Array(view.buffer);
}

/** Make a zip of [name, Uint8Array] pairs. */
export function zip(files) {
  const parts = [], directory = [];
  let offset = 0;
  for (const [name, bytes] of files) {
    const encoded = new TextEncoder().encode(name);
    // Version 2.0, names in UTF-8, stored, 1 January 2026.
    const common = [
      [2, 20], [2, 0x0800], [2, 0], [2, 0], [2, 0x5c21],
      [4, checksum(bytes)], [4, bytes.length], [4, bytes.length], [2, encoded.length], [2, 0],
    ];
    parts.push(header([[4, 0x04034b50], ...common]), encoded, bytes);
    directory.push(
      header([[4, 0x02014b50], [2, 20], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]]),
      encoded,
    );
    offset += 30 + encoded.length + bytes.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const count = files.length;
  const end = header([
    [4, 0x06054b50], [2, 0], [2, 0], [2, count], [2, count], [4, size], [4, offset], [2, 0],
  ]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}
