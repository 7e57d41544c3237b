//! A head and a small body, written in one piece.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

/// The largest message that is put together before it is written.
const SMALL_BYTES: usize = 2048;

/// Writes several slices as `stream` would, but what is small in one piece: to the kernel that is less
/// work than a list.
pub fn poll_write_gathered<S: AsyncWrite>(
    stream: Pin<&mut S>,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [one] = slices {
        return stream.poll_write(cx, one);
    }
    let length: usize = slices.iter().map(|slice| slice.len()).sum();
    if length > SMALL_BYTES {
        return stream.poll_write_vectored(cx, slices);
    }
    let mut whole = [0; SMALL_BYTES];
    let mut end = 0;
    for slice in slices {
        whole[end..end + slice.len()].copy_from_slice(slice);
        end += slice.len();
    }
    stream.poll_write(cx, &whole[..end])
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_written_is_the_same_bytes_in_the_same_order() {
        for length in [0, 1, 1000, SMALL_BYTES, 10 * SMALL_BYTES] {
            let (mut near, mut far) = tokio::io::duplex(1 << 20);
            let body = vec![b'x'; length];
            let slices = [IoSlice::new(b"head"), IoSlice::new(b""), IoSlice::new(&body)];
            let written = poll_fn(|cx| poll_write_gathered(Pin::new(&mut near), cx, &slices));
            let written = written.await.expect("room");
            drop(near);
            let mut read = Vec::new();
            far.read_to_end(&mut read).await.expect("bytes");
            assert_eq!(read, [b"head".as_slice(), &body].concat()[..written]);
            assert!(written >= 4);
        }
    }
}
