//! Lookups that share a command: what is asked while an answer is under way is asked together next. Hundreds of small
//! collections ask the same things; to a server the commands cost more than what is looked up.

use tokio::sync::{mpsc, oneshot};

use crate::sync::error::{Error, Reason, Result};

/// Keys in one command at most.
const MOST: usize = 256;

type Question<K, V> = (K, oneshot::Sender<Result<V>>);

/// Asks for keys together. The task behind it ends with it.
#[derive(Debug)]
pub struct Together<K, V> {
    questions: mpsc::UnboundedSender<Question<K, V>>,
}

impl<K: Send + 'static, V: Send + 'static> Together<K, V> {
    /// `look` answers keys in their order; all of them share its error.
    pub fn new<F>(look: impl Fn(Vec<K>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<Vec<V>>> + Send,
    {
        let (questions, mut asked) = mpsc::unbounded_channel::<Question<K, V>>();
        tokio::spawn(async move {
            let mut some = Vec::new();
            while asked.recv_many(&mut some, MOST).await > 0 {
                let (keys, waiting): (Vec<K>, Vec<_>) = some.drain(..).unzip();
                match look(keys).await {
                    Ok(values) => {
                        for (answer, value) in waiting.into_iter().zip(values) {
                            let _ = answer.send(Ok(value));
                        }
                    }
                    Err(error) => {
                        for answer in waiting {
                            let _ = answer.send(Err(error.clone()));
                        }
                    }
                }
            }
        });
        Self { questions }
    }

    /// The answer to one key, looked up after this call.
    pub async fn ask(&self, key: K) -> Result<V> {
        let ended = || Error::new(Reason::Interrupted, "nobody looks up any more");
        let (answer, answered) = oneshot::channel();
        self.questions.send((key, answer)).map_err(|_| ended())?;
        answered.await.unwrap_or_else(|_| Err(ended()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn what_is_asked_meanwhile_is_asked_together() {
        let (seen, gate) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Semaphore::new(0)));
        let (sizes, open) = (Arc::clone(&seen), Arc::clone(&gate));
        let together = Together::new(move |keys: Vec<u32>| {
            let (sizes, open) = (Arc::clone(&sizes), Arc::clone(&open));
            async move {
                sizes.lock().unwrap().push(keys.len());
                open.acquire().await.unwrap().forget();
                if keys.contains(&99) {
                    return Err(Error::new(Reason::Interrupted, "no"));
                }
                Ok(keys.iter().map(|key| key * 2).collect())
            }
        });
        let asking = join_all((0..10).map(|key| together.ask(key)));
        let opening = async {
            while seen.lock().unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
            gate.add_permits(10);
        };
        let (answers, ()) = tokio::join!(asking, opening);
        let answers: Vec<u32> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, (0..10).map(|key| key * 2).collect::<Vec<_>>());
        assert!(seen.lock().unwrap().len() <= 2, "{seen:?}");
        let refused = join_all([98, 99].map(|key| together.ask(key))).await;
        assert!(refused[1].is_err());
        assert_eq!(together.ask(7).await.unwrap(), 14, "an error is of those who asked");
    }
}
