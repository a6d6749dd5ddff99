//! Reading a list of filters.

use super::super::error::{Code, Error, Result};
use super::super::pack::Reader;
use super::super::release::{BlockStorage, CipherLayout, HashLayout, PageChecksumLayout, Release};
use super::super::string_id::StringId;
use super::{BlockIncremental, CipherKey, CipherMode, Digest, FilterSpec, PageChecksum, PageRule, Secret};

/// More filters than any client chains are refused.
const FILTERS_MAXIMUM: usize = 16;
/// More keys than any repository has are refused.
const KEYS_MAXIMUM: u32 = 1000;

/// Bytes of a page before a client can say how many they are.
const PAGE_SIZE_DEFAULT: u32 = 8192;
/// The sizes that a page can have. PostgreSQL is built with one of them.
const PAGE_SIZES: [u32; 6] = [1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10];
/// The sizes that a block can have. The least that a client chooses by itself is 8 KiB; one below a
/// disk's would only make work.
const BLOCK_SIZES: std::ops::RangeInclusive<u64> = 512..=16 << 20;
/// The most bytes that the option `repo-block-size-super` allows to be stored together.
const SUPER_BLOCK_MAXIMUM: u64 = 16 << 20;
/// Bytes of a checksum where it is SHA-1.
const SHA1_SIZE: usize = 20;
/// Bytes of XXH3-128, of which a checksum may be the front.
const XXH3_SIZE: u64 = 16;

const ENCRYPT: StringId = StringId::new("encrypt");
const DECRYPT: StringId = StringId::new("decrypt");
const AES_256_CBC: StringId = StringId::new("aes-256-cbc");

/// Reads the list of filters that is the next field of a request.
///
/// Null parameters mean a filter's defaults.
///
/// # Errors
///
/// [`Code::Assert`] for a filter that there is not, as the original reports it, and
/// [`Code::Format`] for parameters that do not fit.
pub fn decode_filters(reader: &mut Reader<'_>, release: &Release) -> Result<Vec<FilterSpec>> {
    let Some(mut list) = reader.read_pack()? else { return Ok(Vec::new()) };
    let mut filters = Vec::new();
    while list.peek()?.is_some() {
        if filters.len() == FILTERS_MAXIMUM {
            return Err(Error::format(format!("more than {FILTERS_MAXIMUM} filters")));
        }
        let name = list.read_string_id()?.ok_or_else(|| Error::format("filter has no name"))?;
        let parameters = list.read_pack()?;
        let defaults = parameters.is_none();
        filters.push(decode_filter(name, &mut parameters.unwrap_or(Reader::new(&[])), defaults, release)?);
    }
    Ok(filters)
}

fn decode_filter(name: StringId, parameters: &mut Reader<'_>, defaults: bool, release: &Release) -> Result<FilterSpec> {
    let level = |parameters: &mut Reader<'_>, default| {
        let level = parameters.read_i32()?;
        Ok::<_, Error>(if defaults { default } else { level })
    };
    Ok(match name.to_string().as_str() {
        "hash" if release.hash_layout == HashLayout::Text => FilterSpec::Hash(decode_digest_text(parameters)?),
        "hash" => FilterSpec::Hash(decode_digest(parameters)?.unwrap_or(Digest::Sha1)),
        "size" => FilterSpec::Size,
        "sink" => FilterSpec::Sink,
        "buffer" => FilterSpec::Buffer,
        "gz-cmp" => FilterSpec::GzCompress { level: level(parameters, 6)?, raw: parameters.read_bool()? },
        "gz-dcmp" => FilterSpec::GzDecompress { raw: parameters.read_bool()? },
        "lz4-cmp" => FilterSpec::Lz4Compress { level: level(parameters, 1)?, raw: parameters.read_bool()? },
        "lz4-dcmp" => FilterSpec::Lz4Decompress,
        "zst-cmp" => FilterSpec::ZstCompress { level: level(parameters, 3)? },
        "zst-dcmp" => FilterSpec::ZstDecompress,
        "bz2-cmp" => FilterSpec::Bz2Compress { level: level(parameters, 9)? },
        "bz2-dcmp" => FilterSpec::Bz2Decompress,
        "cipher-blk" => decode_cipher(parameters, release.cipher_layout)?,
        "cipher-fmt" if release.detects_cipher_format => decode_cipher_format(parameters)?,
        "cipher-hdr" if release.detects_cipher_format => {
            FilterSpec::CipherHeader(parameters.read_bin()?.unwrap_or_default().to_vec())
        }
        "pg-chksum" => FilterSpec::PageChecksum(decode_page_checksum(parameters, release.page_checksum_layout)?),
        filter => match (filter, release.block_storage) {
            ("blk-incr", Some(storage)) => {
                FilterSpec::BlockIncremental(Box::new(decode_block_incremental(parameters, storage, release)?))
            }
            ("blk-chk", Some(BlockStorage::Numbered | BlockStorage::Plain)) => {
                let block_size = decode_block_size(parameters)?;
                FilterSpec::BlockChecksum { block_size, checksum_size: decode_checksum_size(parameters)? }
            }
            _ => return Err(Error::new(Code::Assert, format!("unable to add filter '{name}'"))),
        },
    })
}

fn decode_digest(parameters: &mut Reader<'_>) -> Result<Option<Digest>> {
    parameters.read_string_id()?.map(|name| digest(&name.to_string())).transpose()
}

fn decode_digest_text(parameters: &mut Reader<'_>) -> Result<Digest> {
    parameters.read_str()?.map_or(Ok(Digest::Sha1), digest)
}

fn digest(name: &str) -> Result<Digest> {
    match name {
        "md5" => Ok(Digest::Md5),
        "sha1" => Ok(Digest::Sha1),
        "sha256" => Ok(Digest::Sha256),
        _ => Err(Error::new(Code::Assert, format!("unable to load digest '{name}'"))),
    }
}

fn decode_cipher(parameters: &mut Reader<'_>, layout: CipherLayout) -> Result<FilterSpec> {
    let mode = match parameters.read_u64()?.map(StringId) {
        Some(ENCRYPT) => CipherMode::Encrypt,
        Some(DECRYPT) => CipherMode::Decrypt,
        _ => return Err(Error::format("invalid cipher mode")),
    };
    let (digest, pass, magic) = match layout {
        CipherLayout::Raw => {
            decode_cipher_type(parameters.read_u64()?.map(StringId))?;
            let pass = decode_pass(parameters)?;
            let digest = decode_digest_text(parameters)?;
            (digest, pass, !parameters.read_bool()?)
        }
        CipherLayout::Header => {
            decode_cipher_type(parameters.read_string_id()?)?;
            let digest = decode_digest(parameters)?;
            let digest = digest.ok_or_else(|| Error::new(Code::Assert, "unable to load digest '!'"))?;
            let pass = decode_pass(parameters)?;
            let magic = match parameters.read_u32()? {
                0 => true,
                1 => false,
                header => return Err(Error::format(format!("invalid cipher header type {header}"))),
            };
            (digest, pass, magic)
        }
    };
    Ok(FilterSpec::CipherBlock { mode, pass, digest, magic })
}

fn decode_cipher_type(name: Option<StringId>) -> Result<()> {
    match name {
        Some(AES_256_CBC) => Ok(()),
        Some(name) => Err(Error::new(Code::Assert, format!("unable to load cipher '{name}'"))),
        None => Err(Error::format("cipher filter has no cipher")),
    }
}

fn decode_pass(parameters: &mut Reader<'_>) -> Result<Secret> {
    Ok(Secret(parameters.read_bin()?.ok_or_else(|| Error::format("cipher filter has no passphrase"))?.to_vec()))
}

fn decode_cipher_format(parameters: &mut Reader<'_>) -> Result<FilterSpec> {
    let count = parameters.read_u32()?;
    if count > KEYS_MAXIMUM {
        return Err(Error::format(format!("more than {KEYS_MAXIMUM} cipher keys")));
    }
    let mut keys = Vec::new();
    for _ in 0..count {
        let id = parameters.read_str()?.unwrap_or_default().to_owned();
        decode_cipher_type(parameters.read_string_id()?)?;
        let digest = decode_digest(parameters)?;
        keys.push(CipherKey { id, digest, pass: decode_pass(parameters)? });
    }
    // The key that new files are written with; a reader does not need it.
    parameters.skip()?;
    let expected = Some(parameters.read_u32()?).filter(|format| *format != 0);
    Ok(FilterSpec::CipherFormat { keys, expected })
}

fn decode_page_checksum(parameters: &mut Reader<'_>, layout: PageChecksumLayout) -> Result<PageChecksum> {
    let segment = u64::from(parameters.read_u32()?);
    let segment_pages = parameters.read_u32()?;
    let page_size = if layout == PageChecksumLayout::PageSize { parameters.read_u32()? } else { PAGE_SIZE_DEFAULT };
    let rule = match layout {
        PageChecksumLayout::LsnLimit => PageRule::BelowLsn(parameters.read_u64()?.unwrap_or(0)),
        PageChecksumLayout::File => PageRule::ReadAgain { header_check: true },
        PageChecksumLayout::HeaderCheck | PageChecksumLayout::PageSize => {
            PageRule::ReadAgain { header_check: parameters.read_bool()? }
        }
    };
    if !PAGE_SIZES.contains(&page_size) {
        let sizes = PAGE_SIZES.map(|size| size.to_string()).join(", ");
        return Err(Error::format(format!("page size is {page_size} but only {sizes} are supported")));
    }
    // The file that a client names is the one that it reads; pages are read again from that.
    let first = u32::try_from(segment * u64::from(segment_pages)).ok().filter(|_| segment_pages > 0);
    let first = first
        .ok_or_else(|| Error::format(format!("segment {segment} of {segment_pages} pages is not in any relation")))?;
    // The constants fit.
    let page_size = usize::try_from(page_size).unwrap_or(usize::MAX);
    Ok(PageChecksum { first, segment_pages, page_size, rule })
}

fn decode_block_incremental(
    parameters: &mut Reader<'_>,
    storage: BlockStorage,
    release: &Release,
) -> Result<BlockIncremental> {
    let (super_block_size, block_size, checksum_size);
    if storage == BlockStorage::Single {
        block_size = decode_block_size(parameters)?;
        (super_block_size, checksum_size) = (block_size as u64, SHA1_SIZE);
    } else {
        let wanted = parameters.read_u64()?.unwrap_or(0);
        if wanted > SUPER_BLOCK_MAXIMUM {
            return Err(Error::format(format!("super block size {wanted} is larger than {SUPER_BLOCK_MAXIMUM}")));
        }
        block_size = decode_block_size(parameters)?;
        super_block_size = wanted.max(1).next_multiple_of(block_size as u64);
        checksum_size = decode_checksum_size(parameters)?;
    }
    let reference = parameters.read_u32()?;
    let bundle_id = parameters.read_u64()?.unwrap_or(0);
    let bundle_offset = parameters.read_u64()?.unwrap_or(0);
    if i64::try_from(bundle_offset).is_err() {
        return Err(Error::format(format!("bundle offset {bundle_offset} is out of range")));
    }
    let prior = parameters.read_bin()?.map(<[u8]>::to_vec);
    let compress = match parameters.read_pack()? {
        None => None,
        Some(mut inner) => {
            // The name has an id of its own only if there is something to name.
            let name = parameters.read_string_id()?.ok_or_else(|| Error::format("compression filter has no name"))?;
            match decode_filter(name, &mut inner, false, release)? {
                filter @ (FilterSpec::GzCompress { .. }
                | FilterSpec::Lz4Compress { .. }
                | FilterSpec::ZstCompress { .. }
                | FilterSpec::Bz2Compress { .. }) => Some(filter),
                _ => return Err(Error::format(format!("filter '{name}' does not compress blocks"))),
            }
        }
    };
    let encrypt = match parameters.read_pack()? {
        None => None,
        Some(mut inner) => match decode_cipher(&mut inner, release.cipher_layout)? {
            filter @ FilterSpec::CipherBlock { mode: CipherMode::Encrypt, .. } => Some(filter),
            _ => return Err(Error::format("blocks can only be encrypted")),
        },
    };
    Ok(BlockIncremental {
        storage,
        map_rule: release.map_rule,
        block_size,
        super_block_size,
        checksum_size,
        reference,
        bundle_id,
        bundle_offset,
        prior,
        compress,
        encrypt,
    })
}

fn decode_block_size(parameters: &mut Reader<'_>) -> Result<usize> {
    let size = parameters.read_u64()?.unwrap_or(0);
    let fitting = usize::try_from(size).ok().filter(|_| BLOCK_SIZES.contains(&size));
    fitting.ok_or_else(|| {
        let (least, most) = (BLOCK_SIZES.start(), BLOCK_SIZES.end());
        Error::format(format!("block size {size} is out of range {least} to {most}"))
    })
}

fn decode_checksum_size(parameters: &mut Reader<'_>) -> Result<usize> {
    let size = parameters.read_u64()?.unwrap_or(0);
    let fitting = usize::try_from(size).ok().filter(|_| (1..=XXH3_SIZE).contains(&size));
    fitting.ok_or_else(|| Error::format(format!("block checksum size {size} is out of range 1 to {XXH3_SIZE}")))
}
