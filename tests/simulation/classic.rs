//! How clients up to 2.53.1 write and read files: as streams of data messages, without waiting for
//! the server while they send.

use repohostd::disk::Disk;
use repohostd::protocol::pack::{Reader, Writer};
use repohostd::protocol::string_id::StringId;

use crate::client::Doing;
use crate::world::{FILES, World};

/// The message that ends the data of a file.
const NO_DATA: [u8; 2] = [0x80, 0x00];

/// A message from the server.
#[derive(Debug, PartialEq, Eq)]
enum Message<'a> {
    /// The pack of a data message, if it has one.
    Data(Option<&'a [u8]>),
    End,
    Error,
}

/// The whole messages in `bytes`; `None` when the last one is not whole.
fn messages(mut bytes: &[u8]) -> Option<Vec<Message<'_>>> {
    let mut messages = Vec::new();
    while let [first, second, rest @ ..] = bytes {
        match (first, second) {
            (0x84, 0x00) => messages.push(Message::End),
            (0x80, 0x00) => messages.push(Message::Data(None)),
            // Nothing follows an error here, since clients look at it before they go on.
            (0x88, 0x03) => {
                messages.push(Message::Error);
                return Some(messages);
            }
            (0x80, 0xf0) => {
                let [0x02, rest @ ..] = rest else { return None };
                let bytes_of_length = 1 + rest.iter().position(|byte| byte & 0x80 == 0)?;
                let number = rest[..bytes_of_length].iter().rev();
                let length = number.fold(0, |value, byte| value << 7 | usize::from(byte & 0x7f));
                let end = bytes_of_length + length;
                assert_eq!(rest.get(end)?, &0, "a data message ends after its pack");
                messages.push(Message::Data(Some(&rest[bytes_of_length..end])));
                bytes = &rest[end + 1..];
                continue;
            }
            _ => panic!("no message begins with {bytes:02x?}"),
        }
        bytes = rest;
    }
    bytes.is_empty().then_some(messages)
}

/// Whether a client has all that it waits for.
pub(crate) fn is_complete(doing: Doing, received: &[u8]) -> bool {
    let last = || messages(received).and_then(|mut messages| messages.pop());
    match doing {
        Doing::Config => !received.is_empty(),
        // It does not look before it has sent all.
        Doing::Block => true,
        Doing::Opening => last().is_some(),
        _ => matches!(last(), Some(Message::End | Message::Error)),
    }
}

impl<D: Disk> World<'_, D> {
    /// Sends what comes next from a client that has what it waited for.
    pub(crate) fn act_classic(&mut self, index: usize) {
        let doing = self.clients[index].doing;
        if doing == Doing::Block {
            return self.go_on_sending(index);
        }
        let received = std::mem::take(&mut self.clients[index].received);
        if doing == Doing::Config {
            return self.command(index, Doing::Greeted, "config", |pack| {
                pack.array(|array| _ = array.str("archive-push:remote"));
            });
        }
        let messages = messages(&received).expect("the answer is complete");
        let failed = messages.contains(&Message::Error);
        let path = self.clients[index].path.clone();
        match doing {
            Doing::Greeted => self.command(index, Doing::Noop, "noop", |_| {}),
            Doing::Opening if !failed => {
                self.check_opened(index);
                assert_eq!(messages, [Message::Data(None)]);
                self.go_on_sending(index);
            }
            Doing::Closing if !failed => {
                assert!(matches!(messages[..], [Message::Data(Some(_)), Message::End]), "{messages:?}");
                self.files.acknowledge(&path);
                self.command(index, Doing::Reading, "s-or", |pack| _ = pack.str(path.to_str().unwrap()));
            }
            Doing::Reading => {
                self.check_read(index, &messages, failed);
                self.next(index);
            }
            Doing::Listing => {
                if !failed {
                    self.check_list(&received);
                }
                self.expire(index);
            }
            Doing::Expiring => {
                self.check_expired(index, !failed);
                self.next_file(index);
            }
            _ => self.next(index),
        }
    }

    fn check_read(&self, index: usize, messages: &[Message<'_>], failed: bool) {
        let mut read = Vec::new();
        for message in messages {
            let Message::Data(Some(pack)) = message else { continue };
            if let Ok(Some(block)) = Reader::new(pack).read_bin() {
                read.extend_from_slice(block);
            }
        }
        let full = if failed { read.len() } else { usize::MAX };
        assert!(self.files.begins_with(&self.clients[index].path, &read, full), "what is read is what was written");
    }

    fn go_on_sending(&mut self, index: usize) {
        let drops = self.random.one_in(20);
        let length = 1 + self.random.below(300_000);
        let client = &mut self.clients[index];
        let (start, end) = (client.sent, client.content.len().min(client.sent + length));
        if drops {
            client.doing = Doing::Cancelling;
            client.sending = [&[0x80, 0xf0, 0x02, 0x01, 0x00, 0x00], &NO_DATA[..]].concat();
        } else if start == end {
            client.doing = Doing::Closing;
            client.sending = NO_DATA.to_vec();
        } else {
            let mut writer = Writer::new();
            writer.u32_forced(0).pack(|pack| _ = pack.bin(&client.content[start..end]));
            client.doing = Doing::Block;
            client.sending = writer.finish();
            client.sent = end;
        }
    }

    fn next(&mut self, index: usize) {
        if !self.habits.list {
            return self.expire(index);
        }
        let many = self.many();
        self.command(index, Doing::Listing, "s-l", |pack| _ = pack.str(many.to_str().unwrap()).u32(1));
    }

    fn expire(&mut self, index: usize) {
        match self.wants_expired(index) {
            Some(path) => self.command(index, Doing::Expiring, "s-pr", |pack| _ = pack.str(&path).bool(true)),
            None => self.next_file(index),
        }
    }

    fn next_file(&mut self, index: usize) {
        self.clients[index].file += 1;
        if self.clients[index].file > FILES {
            return self.command(index, Doing::Exiting, "exit", |_| {});
        }
        let parameters = self.begin_file(index);
        self.command(index, Doing::Opening, "s-ow", parameters);
    }

    fn command(&mut self, index: usize, doing: Doing, command: &str, fill: impl FnOnce(&mut Writer)) {
        let mut writer = Writer::new();
        writer.u32(2).string_id(StringId::new(command)).pack(fill);
        let client = &mut self.clients[index];
        client.doing = doing;
        client.sending = writer.finish();
    }
}
