//! A reader of what block incremental writes, which knows the rules and none of the code that is tested.

use super::*;

/// A block as a map says where it is: backup, bytes of its super block, where that is stored, and its
/// number there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Item {
    pub(super) reference: u64,
    pub(super) size: u64,
    pub(super) bundle_id: u64,
    pub(super) offset: u64,
    pub(super) stored: u64,
    pub(super) number: u64,
}

/// A reader of maps that follows the specification line by line.
pub(super) struct MapReader<'a>(pub(super) &'a [u8]);

impl MapReader<'_> {
    pub(super) fn number(&mut self) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = self.byte();
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    pub(super) fn byte(&mut self) -> u8 {
        let (byte, rest) = self.0.split_first().unwrap();
        self.0 = rest;
        *byte
    }

    pub(super) fn skip(&mut self, bytes: usize) {
        self.0 = &self.0[bytes..];
    }

    pub(super) fn difference(value: u64) -> i64 {
        i64::try_from(value >> 1).unwrap() ^ -i64::try_from(value & 1).unwrap()
    }

    pub(super) fn read(mut self, block_size: u64, checksum_size: usize) -> Vec<Item> {
        let mut items = Vec::new();
        let mut known: HashMap<u64, (Item, u64)> = HashMap::new();
        let mut last = 0;
        assert_eq!(self.number(), 0);
        loop {
            let e = self.number();
            let reference = e >> 3;
            let mut item = Item { reference, size: block_size, bundle_id: 0, offset: 0, stored: 0, number: 0 };
            let mut goes_on = false;
            if let Some((state, _)) = known.get_mut(&reference) {
                item = *state;
                if e & 2 != 0 {
                    goes_on = true;
                } else {
                    item.offset = state.offset + state.stored + if e & 4 == 0 { 0 } else { self.number() };
                }
            } else {
                item.bundle_id = if e & 2 == 0 { 0 } else { self.number() };
                item.offset = if e & 4 == 0 { 0 } else { self.number() };
                known.insert(reference, (item, 0));
            }
            loop {
                let (state, block) = known.get_mut(&reference).unwrap();
                let s;
                if std::mem::take(&mut goes_on) {
                    s = 4 | u64::from(e & 4 != 0);
                } else {
                    s = self.number();
                    let size = s >> 3;
                    item.stored = if last == 0 { size } else { u64::try_from(last + Self::difference(size)).unwrap() };
                    if s & 2 != 0 {
                        let z = self.number();
                        item.size = (z >> 1) * block_size + if z & 1 == 0 { 0 } else { self.number() };
                    }
                    *block = 0;
                    *state = item;
                }
                last = i64::try_from(item.stored).unwrap();
                let total = if s & 4 == 0 {
                    item.size.div_ceil(block_size)
                } else {
                    let t = self.number();
                    *block += if t & 1 == 0 { 0 } else { self.number() };
                    (t >> 1) + 1
                };
                for _ in 0..total {
                    self.skip(checksum_size);
                    items.push(Item { number: *block, ..item });
                    *block += 1;
                }
                item.offset += item.stored;
                if s & 1 != 0 {
                    break;
                }
            }
            if e & 1 != 0 {
                assert!(self.0.is_empty(), "the map goes on behind its end");
                return items;
            }
        }
    }

    pub(super) fn read_single(mut self) -> Vec<Item> {
        let mut items = Vec::new();
        let mut known: HashMap<u64, (u64, u64)> = HashMap::new();
        let mut last = 0;
        loop {
            let Some(reference) = self.number().checked_sub(1) else {
                assert!(self.0.is_empty());
                return items;
            };
            let is_new = !known.contains_key(&reference);
            let bundle_id = if is_new { self.number() } else { known[&reference].0 };
            let gap = self.number();
            let (_, offset) = known.entry(reference).or_insert((bundle_id, 0));
            *offset += gap;
            loop {
                let size = self.number();
                if size == 0 {
                    break;
                }
                let stored = if last == 0 { size } else { u64::try_from(last + Self::difference(size - 1)).unwrap() };
                last = i64::try_from(stored).unwrap();
                self.skip(20);
                items.push(Item { reference, size: 0, bundle_id, offset: *offset, stored, number: 0 });
                *offset += stored;
            }
        }
    }
}

/// Takes chunks apart.
pub(super) fn unchunk(bytes: &[u8]) -> Vec<u8> {
    let mut reader = MapReader(bytes);
    let mut data = Vec::new();
    let mut last = 0;
    loop {
        let size = reader.number();
        if size == 0 {
            assert!(reader.0.is_empty());
            return data;
        }
        let size = if last == 0 { size } else { u64::try_from(last + MapReader::difference(size - 1)).unwrap() };
        last = i64::try_from(size).unwrap();
        let (chunk, rest) = reader.0.split_at(usize::try_from(size).unwrap());
        data.extend_from_slice(chunk);
        reader.0 = rest;
    }
}

/// What undoes the compression and encryption of `spec`.
pub(super) fn undo(spec: &BlockIncremental, bytes: &[u8]) -> Vec<u8> {
    let mut specs = Vec::new();
    if spec.encrypt.is_some() {
        specs.push(decrypt(Digest::Sha1, false));
    }
    specs.extend(spec.compress.as_ref().map(|compress| match compress {
        FilterSpec::GzCompress { raw, .. } => FilterSpec::GzDecompress { raw: *raw },
        FilterSpec::Lz4Compress { .. } => FilterSpec::Lz4Decompress,
        FilterSpec::ZstCompress { .. } => FilterSpec::ZstDecompress,
        FilterSpec::Bz2Compress { .. } => FilterSpec::Bz2Decompress,
        other => panic!("{other:?}"),
    }));
    run(specs, bytes).unwrap()
}

/// What a restore makes of a map and of what the backups stored: bytes by backup, each beginning at the
/// offset that the backup was given.
pub(super) fn restore(spec: &BlockIncremental, map: &[u8], backups: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let reader = MapReader(map);
    let items = if spec.storage == BlockStorage::Single {
        reader.read_single()
    } else {
        reader.read(spec.block_size as u64, spec.checksum_size)
    };
    let mut file = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let (base, stored) = &backups[usize::try_from(item.reference).unwrap()];
        let at = usize::try_from(item.offset - base).unwrap();
        let stored = &stored[at..at + usize::try_from(item.stored).unwrap()];
        if spec.storage == BlockStorage::Plain {
            let data = undo(spec, stored);
            assert_eq!(data.len() as u64, item.size);
            let at = usize::try_from(item.number).unwrap() * spec.block_size;
            file.extend_from_slice(&data[at..data.len().min(at + spec.block_size)]);
            continue;
        }
        let data = undo(spec, &unchunk(stored));
        let mut reader = MapReader(&data);
        for number in 0.. {
            let delta = reader.number();
            assert!(delta <= index as u64);
            let (block, rest) = reader.0.split_at(reader.0.len().min(spec.block_size));
            reader.0 = rest;
            if number == item.number {
                file.extend_from_slice(block);
                break;
            }
        }
    }
    file
}
