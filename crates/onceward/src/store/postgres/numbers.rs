//! Numbers that bodies are found by: given out in blocks, so that nodes agree without asking.

use bytes::Bytes;
use onceward_core::attempt::BodyRef;

use super::link::Link;

/// A block of numbers for bodies.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    next: u32,
    left: u32,
}

impl Numbers {
    async fn next(&mut self, link: &Link) -> Result<u32, tokio_postgres::Error> {
        if self.left == 0 {
            let rows = link.query("SELECT nextval('body_block')", &[]).await?;
            let block: i64 = rows[0].get(0);
            (self.next, self.left) = ((block as u32) << 12, 4096);
        }
        self.left -= 1;
        let number = self.next;
        // Past the last number of the last block there is none, and none is asked for.
        self.next = number.wrapping_add(1);
        Ok(number)
    }

    /// Where `bytes` are put on `day`.
    pub(super) async fn place(
        &mut self,
        link: &Link,
        day: i32,
        bytes: &Bytes,
    ) -> Result<BodyRef, tokio_postgres::Error> {
        Ok(BodyRef {
            segment: day as u32,
            offset: self.next(link).await?,
            length: bytes.len() as u32,
            crc: crc32fast::hash(bytes),
        })
    }
}
