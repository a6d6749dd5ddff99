//! Who we are: passwords in the clear, MD5 and SCRAM-SHA-256, as libpq answers them.

use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{AuthenticationSaslBody, AuthenticationSaslContinueBody, Message};
use postgres_protocol::message::frontend;
use zeroize::Zeroizing;

use super::{Authentication, Client, Phase};
use crate::postgres::messages::Malformed;

/// Rounds of hashing that a server may ask for with SCRAM, as postgres-protocol has it too; by default a server asks
/// for 4096. A round takes a microsecond, during which nobody else is served.
const ROUNDS_MAXIMUM: u32 = 100_000;
const NO_PASSWORD: &str = "fe_sendauth: no password supplied\n";

impl Client {
    /// Answers what the server wants to know, once.
    pub(super) fn authenticate(&mut self, message: Message) -> Result<(), Malformed> {
        let Phase::Starting(authentication) = &mut self.phase else { return Ok(()) };
        match (message, std::mem::replace(authentication, Authentication::Answered)) {
            (Message::AuthenticationCleartextPassword, Authentication::Begun) => {
                self.send_password(|_, password| Zeroizing::new(password.to_owned()));
            }
            (Message::AuthenticationMd5Password(body), Authentication::Begun) => {
                self.send_password(|user, password| {
                    Zeroizing::new(md5_hash(user.as_bytes(), password.as_bytes(), body.salt()))
                });
            }
            (Message::AuthenticationSasl(body), Authentication::Begun) => self.begin_scram(&body),
            (Message::AuthenticationSaslContinue(body), Authentication::Scram(scram)) => {
                self.continue_scram(scram, &body);
            }
            (Message::AuthenticationSaslFinal(body), Authentication::Scram(mut scram)) => {
                if scram.finish(body.data()).is_err() {
                    self.refuse("incorrect server signature");
                }
            }
            (Message::AuthenticationKerberosV5, _) => self.refuse("Kerberos 5 authentication not supported"),
            (Message::AuthenticationGss | Message::AuthenticationGssContinue(_), _) => {
                self.refuse("GSSAPI authentication not supported");
            }
            (Message::AuthenticationSspi, _) => self.refuse("SSPI authentication not supported"),
            (Message::AuthenticationScmCredential, _) => self.refuse("authentication method 6 not supported"),
            _ => return Err(Malformed::Unknown),
        }
        Ok(())
    }

    fn password(&mut self) -> Option<Zeroizing<String>> {
        let password = self.target().and_then(|target| target.password.clone()).filter(|text| !text.is_empty());
        if password.is_none() {
            self.refuse(NO_PASSWORD);
        }
        password
    }

    fn send_password(&mut self, make: impl FnOnce(&str, &str) -> Zeroizing<String>) {
        let Some(password) = self.password() else { return };
        let answer = make(&self.plan.user, &password);
        if let Err(error) = frontend::password_message(answer.as_bytes(), &mut self.output) {
            self.refuse(&error.to_string());
        }
    }

    fn begin_scram(&mut self, body: &AuthenticationSaslBody) {
        let offered = body.mechanisms().any(|mechanism| Ok(mechanism == SCRAM_SHA_256)).unwrap_or(false);
        if !offered {
            return self.refuse("none of the server's SASL authentication mechanisms are supported");
        }
        let Some(password) = self.password() else { return };
        let scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        match frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut self.output) {
            Ok(()) => self.phase = Phase::Starting(Authentication::Scram(Box::new(scram))),
            Err(error) => self.refuse(&error.to_string()),
        }
    }

    fn continue_scram(&mut self, mut scram: Box<ScramSha256>, body: &AuthenticationSaslContinueBody) {
        if rounds(body.data()).is_none_or(|rounds| rounds > ROUNDS_MAXIMUM) {
            return self.refuse(&format!(
                "malformed SCRAM message (invalid iteration count, of which {ROUNDS_MAXIMUM} is the largest)"
            ));
        }
        let updated = scram.update(body.data());
        match updated.and_then(|()| frontend::sasl_response(scram.message(), &mut self.output)) {
            Ok(()) => self.phase = Phase::Starting(Authentication::Scram(scram)),
            Err(error) => self.refuse(&format!("malformed SCRAM message ({error})")),
        }
    }
}

/// The rounds of hashing that a server's first message of SCRAM asks for.
fn rounds(message: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(message).ok()?;
    text.split(',').find_map(|part| part.strip_prefix("i="))?.parse().ok()
}
