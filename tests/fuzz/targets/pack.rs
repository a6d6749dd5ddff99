//! Any bytes as a pack: what is read can be written, and what is written is read.

#![no_main]

use libfuzzer_sys::fuzz_target;
use repohostd::protocol::error::Result;
use repohostd::protocol::pack::{Reader, Type, Writer, decode_field};
use repohostd::protocol::string_id::StringId;
use repohostd_fuzz::{golden, seeds};

/// Fields behind this one are left out: null fields can only be passed one by one.
const ID_MAXIMUM: u64 = 1000;

#[derive(Debug, PartialEq)]
enum Value {
    Bool,
    I32(i32),
    U32(u32),
    U64(u64),
    Time(i64),
    Mode(u32),
    Id(StringId),
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    Array(Vec<(u64, Value)>),
    Pack(Vec<(u64, Value)>),
}

/// All fields that are not what they are by default, with their numbers; what cannot be read but only left out, is.
fn read(reader: &mut Reader<'_>) -> Result<Vec<(u64, Value)>> {
    let (mut fields, mut at, mut last) = (Vec::new(), 0, 0);
    while let Some((id, kind)) = reader.peek()? {
        assert!(id > last, "numbers of fields rise");
        last = id;
        if id > ID_MAXIMUM {
            break;
        }
        while at + 1 < id {
            reader.skip()?;
            at += 1;
        }
        at = id;
        let value = match kind {
            Type::Bool => Some(Value::Bool).filter(|_| reader.read_bool().is_ok_and(|value| value)),
            Type::I32 => Some(reader.read_i32()?).filter(|value| *value != 0).map(Value::I32),
            Type::U32 => Some(reader.read_u32()?).filter(|value| *value != 0).map(Value::U32),
            Type::U64 => reader.read_u64()?.filter(|value| *value != 0).map(Value::U64),
            Type::Time => Some(reader.read_time()?).filter(|value| *value != 0).map(Value::Time),
            Type::Mode => reader.read_mode()?.map(Value::Mode),
            Type::StringId => reader.read_string_id()?.map(Value::Id),
            Type::Str => reader.read_text()?.map(|text| Value::Text(text.to_vec())),
            Type::Bin => reader.read_bin()?.map(|bytes| Value::Bytes(bytes.to_vec())),
            Type::Array => {
                // each element is one field; the numbers are lost, as they are for every caller
                let elements = reader.read_array(|element| {
                    let kind = element.peek()?.map(|(_, kind)| kind);
                    if kind == Some(Type::Str) {
                        element.read_text().map(|text| text.map(<[u8]>::to_vec))
                    } else {
                        element.skip().map(|()| None)
                    }
                })?;
                let texts = elements.unwrap_or_default().into_iter().flatten();
                Some(Value::Array((1..).zip(texts.map(Value::Text)).collect()))
            }
            Type::Pack => match reader.read_pack()? {
                Some(mut inner) => Some(Value::Pack(read(&mut inner)?)),
                None => None,
            },
            Type::I64 | Type::Object => {
                reader.skip()?;
                None
            }
        };
        fields.extend(value.map(|value| (id, value)));
    }
    Ok(fields)
}

fn write(writer: &mut Writer, fields: &[(u64, Value)]) {
    for (id, value) in fields {
        writer.skip_to(*id);
        match value {
            Value::Bool => writer.bool(true),
            Value::I32(value) => writer.i32(*value),
            Value::U32(value) => writer.u32(*value),
            Value::U64(value) => writer.u64(*value),
            Value::Time(value) => writer.time(*value),
            Value::Mode(value) => writer.mode_default(*value, !*value),
            Value::Id(value) => writer.string_id(*value),
            Value::Text(value) => writer.text(value),
            Value::Bytes(value) => writer.bin(value),
            Value::Array(elements) => writer.array(|array| write(array, elements)),
            Value::Pack(fields) => writer.pack(|pack| write(pack, fields)),
        };
    }
}

fuzz_target!(
    init: seeds::offer(|| golden::conversations().into_iter().flat_map(|it| it.requests).collect()),
    |data: &[u8]| {
        // a field is there, or it is not, but less of it is never anything else
        if let Ok(Some((_, length))) = decode_field(data) {
            assert!((1..=data.len()).contains(&length));
            for end in 0..length {
                assert_eq!(decode_field(&data[..end]), Ok(None));
            }
        }
        let Ok(fields) = read(&mut Reader::new(data)) else { return };
        let mut writer = Writer::new();
        write(&mut writer, &fields);
        let written = writer.finish();
        let again = read(&mut Reader::new(&written)).expect("what was written is a pack");
        assert_eq!(fields, again);
        let mut writer = Writer::new();
        write(&mut writer, &again);
        assert_eq!(writer.finish(), written);
    }
);
