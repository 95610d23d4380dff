//! `strongroom transit`: keys that encrypt and sign for callers. Content comes from stdin or a file, never from the command line.
//! Reading order: this file, `key`.

mod key;

use crate::{
    context::Context,
    failure::{Exit, Failure},
    input::{Source, one_line},
    output::{Answer, Human},
};
use clap::{Args, Subcommand};
use data_encoding::BASE64;
use key::Key;
use serde_json::json;
use strongroom_client::Signature;

#[derive(Debug, Subcommand)]
pub enum Transit {
    /// Make, show, rotate and end keys
    #[command(
        subcommand,
        after_help = "\
Examples:
  strongroom transit key create transit/orders --kind aes256-gcm
  strongroom transit key rotate transit/orders"
    )]
    Key(Key),
    /// Encrypt; prints the ciphertext in base64
    #[command(after_help = "\
Examples:
  printf %s \"$CARD\" | strongroom transit encrypt transit/orders
  strongroom transit encrypt transit/orders @card.txt --context order-17")]
    Encrypt(Sealing),
    /// Decrypt what `encrypt` or `data-key` printed; prints the text's bytes
    #[command(after_help = "\
Examples:
  strongroom transit decrypt transit/orders @card.enc --context order-17 > card.txt

JSON: {plaintext_base64}")]
    Decrypt(Sealing),
    /// Encrypt a ciphertext anew with the newest version; nobody sees the text
    #[command(after_help = "\
Examples:
  strongroom transit rewrap transit/orders @card.enc --context order-17 > card.new")]
    Rewrap(Sealing),
    /// Sign with the newest version
    #[command(after_help = "\
Examples:
  strongroom transit sign transit/releases @app.tar
  strongroom transit sign transit/releases @app.tar --raw > app.sig")]
    Sign(Signing),
    /// Make an HMAC with the newest version
    #[command(after_help = "\
Examples:
  strongroom transit hmac transit/webhooks @body.json")]
    Hmac(Signing),
    /// Check a signature or an HMAC; exit code 1 when it is not right
    #[command(after_help = "\
Examples:
  strongroom transit verify transit/releases @app.tar --signature @app.sig --key-version 1")]
    Verify {
        /// `transit/releases`
        key: String,
        /// What was signed: `-` (stdin) or @FILE
        #[arg(default_value = "-")]
        input: Source,
        /// In base64, or @FILE with its bytes
        #[arg(long, value_name = "BASE64|@FILE")]
        signature: String,
        /// The version that made it
        #[arg(long, value_name = "VERSION")]
        key_version: u32,
    },
    /// Make a key for your own use, and the same encrypted
    #[command(after_help = "\
Examples:
  strongroom transit data-key transit/orders --output json
  strongroom transit data-key transit/orders --wrapped-only")]
    DataKey {
        /// `transit/orders`
        key: String,
        /// 32 or 64
        #[arg(long, default_value_t = 32)]
        bytes: u32,
        /// Associated data, not secret; needed again to decrypt
        #[arg(long, default_value = "", hide_default_value = true)]
        context: String,
        /// Print the encrypted key alone
        #[arg(long)]
        wrapped_only: bool,
    },
}

#[derive(Debug, Args)]
pub struct Sealing {
    /// `transit/orders`
    key: String,
    /// `-` (stdin) or @FILE; a ciphertext in base64
    #[arg(default_value = "-")]
    input: Source,
    /// Associated data, not secret; needed again to decrypt
    #[arg(long, default_value = "", hide_default_value = true)]
    context: String,
}

#[derive(Debug, Args)]
pub struct Signing {
    /// `transit/releases`
    key: String,
    /// `-` (stdin) or @FILE
    #[arg(default_value = "-")]
    input: Source,
    /// Print the bytes and nothing else
    #[arg(long)]
    raw: bool,
}

impl Transit {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        match self {
            Self::Key(key) => key.run(context).await,
            Self::Encrypt(what) => {
                let text = context.bytes(&what.input, "text")?;
                let sealed = context
                    .client()
                    .await?
                    .encrypt(&what.key, &text, what.context.as_bytes())
                    .await?;
                Ok(ciphertext(&sealed))
            }
            Self::Decrypt(what) => {
                let sealed = what.ciphertext(context)?;
                let text = context
                    .client()
                    .await?
                    .decrypt(&what.key, &sealed, what.context.as_bytes())
                    .await?;
                let json = json!({"plaintext_base64": BASE64.encode(text.expose())});
                Ok(Answer::new(json, Human::Raw(text.expose().to_vec())))
            }
            Self::Rewrap(what) => {
                let sealed = what.ciphertext(context)?;
                let again = context
                    .client()
                    .await?
                    .rewrap(&what.key, &sealed, what.context.as_bytes())
                    .await?;
                Ok(ciphertext(&again))
            }
            Self::Sign(what) => {
                let input = context.bytes(&what.input, "input")?;
                let made = context.client().await?.sign(&what.key, input.expose()).await?;
                Ok(signature(made, what.raw))
            }
            Self::Hmac(what) => {
                let input = context.bytes(&what.input, "input")?;
                let made = context.client().await?.hmac(&what.key, input.expose()).await?;
                Ok(signature(made, what.raw))
            }
            Self::Verify {
                key,
                input,
                signature,
                key_version,
            } => verify(context, &key, &input, &signature, key_version).await,
            Self::DataKey {
                key,
                bytes,
                context: with,
                wrapped_only,
            } => {
                let client = context.client().await?;
                let made = client.data_key(&key, bytes, with.as_bytes(), wrapped_only).await?;
                let plain = made.plaintext.map(|plain| BASE64.encode(plain.expose()));
                let wrapped = BASE64.encode(&made.wrapped);
                let json = json!({"plaintext_base64": plain, "ciphertext": wrapped});
                Ok(match plain {
                    Some(plain) => Answer::pairs(json, [("plaintext", plain), ("ciphertext", wrapped)]),
                    None => Answer::said(json, wrapped),
                })
            }
        }
    }
}

async fn verify(
    context: &Context,
    key: &str,
    input: &Source,
    signature: &str,
    key_version: u32,
) -> Result<Answer, Failure> {
    let input = context.bytes(input, "input")?;
    let bytes = match signature.strip_prefix('@') {
        Some(file) => context
            .bytes(&Source::File(file.into()), "signature")?
            .expose()
            .to_vec(),
        None => base64(signature.as_bytes(), "signature")?,
    };
    let made = Signature { bytes, key_version };
    let valid = context.client().await?.verify(key, input.expose(), &made).await?;
    let (said, exit) = if valid {
        ("valid", Exit::Done)
    } else {
        ("NOT valid", Exit::Other)
    };
    Ok(Answer::said(json!({"valid": valid}), said).exit(exit))
}

impl Sealing {
    fn ciphertext(&self, context: &Context) -> Result<Vec<u8>, Failure> {
        let text = context.bytes(&self.input, "ciphertext")?;
        base64(one_line(&text).expose(), "ciphertext")
    }
}

fn base64(text: &[u8], what: &str) -> Result<Vec<u8>, Failure> {
    BASE64
        .decode(text)
        .map_err(|_| Failure::usage(format!("the {what} is not base64"), "give it as it was printed"))
}

fn ciphertext(bytes: &[u8]) -> Answer {
    let text = BASE64.encode(bytes);
    Answer::said(json!({"ciphertext": text}), text)
}

fn signature(made: Signature, raw: bool) -> Answer {
    if raw {
        return Answer::raw(made.bytes);
    }
    let text = BASE64.encode(&made.bytes);
    let json = json!({"signature": text, "key_version": made.key_version});
    Answer::pairs(
        json,
        [("signature", text), ("key version", made.key_version.to_string())],
    )
}
