"""The article's neural recommender: user embedding → [Dense ReLU → Dropout → BatchNorm] × n → softmax over products.

Trained in Keras on TensorFlow. The input is the time-decayed average of the pre-trained embeddings of what a user saw,
the label the product that came next; the network learns which products follow a taste, and how popular they are.

It trains on several machines or GPUs when asked (`strategy`): each takes its share of every batch, and gradients and batch
statistics are summed over all, so the network is the one that a single machine would have trained, but for what dropout leaves
out. Keras 3's own `fit` refuses several machines, hence the loop here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from shelfspace.measure.ranking import Model
from shelfspace.models import losses, training
from shelfspace.models.training import Rows, keras, tf
from shelfspace.models.users import user_embeddings
from shelfspace.sequences.arrays import Examples, passes

EXAMPLES = 400_000  # learned from in all, where the number of passes is left to the size of the log; two passes at least


def dense(users: np.ndarray, n_products: int, hidden: Sequence[int] = (128,), dropout: float = 0.3) -> keras.Model:
    """Build the network: input (batch, dim) float32, output (batch, n_products) logits of the softmax.

    Parameters
    ----------
    users : ndarray of float32, shape (n, dim)
        The training inputs: a first layer takes out their mean and variance, as embeddings differ in scale.
    n_products : int
    hidden : sequence of int
        Units of each Dense layer, in order.
    dropout : float
        Share of each layer's units that is left out at random while training.
    """
    user = keras.Input((users.shape[1],), name="user_embedding")
    spread = np.maximum(users.var(axis=0), 1e-12)
    x = keras.layers.Normalization(mean=users.mean(axis=0), variance=spread)(user)
    for units in hidden:
        x = keras.layers.Dense(units, activation="relu")(x)
        x = keras.layers.Dropout(dropout)(x)
        x = keras.layers.BatchNormalization(synchronized=True)(x)  # over all shares of a batch, where it is shared out
    return keras.Model(user, keras.layers.Dense(n_products, name="products")(x), name="dense")


def fit(
    path: str | Path,
    vectors: np.ndarray,
    known: np.ndarray,
    decay: float,
    decay_time: str,
    learn: Examples,
    valid: Examples,
    *,
    hidden: Sequence[int],
    dropout: float,
    distribute: str,
    epochs: int,
    examples: int,
    seed: int,
    **settings,
) -> list[dict[str, float]]:
    """Embed the users, build the network, train it and write it to a file: for `shelfspace.files.run_files.once`.

    Parameters
    ----------
    path : str or Path
        Of a ``.keras`` file.
    vectors, known, decay, decay_time
        Of the user embeddings; see `shelfspace.models.users.user_embeddings`.
    learn, valid : Examples
        What it learns from, and what is measured after every pass.
    hidden, dropout
        See `dense`.
    distribute : str
        See `shelfspace.models.training.strategy`.
    epochs, examples
        See `train`. No more users are embedded than all passes together can take: those of a large log would take gigabytes.
    seed : int
    settings
        What else `train` takes.

    Returns
    -------
    list of dict
        As `train`.
    """
    training.deterministic(seed)
    shared = training.strategy(distribute)
    epochs = epochs or passes(min(len(learn), examples), EXAMPLES, least=2)
    learn = learn.sample(epochs * examples, seed)
    users, valid_users = (user_embeddings(part, vectors, decay, decay_time, known) for part in (learn, valid))
    network = dense(users, len(vectors), hidden, dropout)
    given = {"epochs": epochs, "examples": examples, "seed": seed, "shared": shared} | settings
    history = train(network, users, learn.target, valid_users, valid.target, **given)
    network.save(path)
    return history


def train(
    network: keras.Model,
    users: np.ndarray,
    targets: np.ndarray,
    valid_users: np.ndarray | None = None,
    valid_targets: np.ndarray | None = None,
    *,
    epochs: int = 0,
    batch: int = 1024,
    learning_rate: float = 0.008,
    examples: int = 500_000,
    negatives: int = 2048,
    seed: int = 0,
    shared: tf.distribute.Strategy | None = None,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Fit by cross-entropy with Adam, whose step size falls linearly to zero over all epochs; keep the weights of the best.

    The best has the highest MRR@20 of the valid users; without them, the last weights are kept.

    Call `deterministic` before `dense` for the same weights in every run.

    Parameters
    ----------
    network : keras.Model
        From `dense`; changed in place.
    users, valid_users : ndarray of float32, shape (n, dim)
        The latter are optional.
    targets, valid_targets : ndarray of int, shape (n,)
        Product to find.
    epochs : int
        Passes; 0 for as many as make about `EXAMPLES` examples in all (`shelfspace.sequences.arrays.passes`).
    examples : int
        A pass takes at most so many examples, drawn anew each time.
    negatives : int
        A step takes the targets of its batch and so many other products, at most a quarter of the catalogue, which stand for the
        rest (`shelfspace.models.training.sample`). Their rows of the softmax move in the steps that hold them (`Rows`).
    seed : int
        Of what is drawn.
    batch : int
        Examples per step.
    learning_rate : float
        Adam's step size at the start.
    shared : tf.distribute.Strategy, optional
        From `strategy`; who shares the training. Every machine ends with the same weights.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list of dict
        Per epoch: "loss" (training cross-entropy), and with valid users "valid_loss" and "valid_mrr@20".
    """
    rng = np.random.default_rng(seed)
    shared = shared or training.strategy()
    learner = network
    if shared.num_replicas_in_sync > 1:  # a twin learns, as Keras's predictions would be those of all replicas
        with shared.scope():
            learner = keras.models.clone_model(network)
            learner.set_weights(network.get_weights())
    n_products = network.output.shape[1]
    epochs = epochs or passes(min(len(users), examples), EXAMPLES, least=2)
    steps = epochs * -(-min(len(users), examples) // batch)
    learn = _pass(learner, learning_rate, steps, batch, min(negatives, n_products // 4), shared, rng)
    history: list[dict[str, float]] = []
    best, best_weights = -1.0, network.get_weights()
    with tqdm(total=epochs, desc="recommender", unit="epoch", disable=not progress) as bar:
        for _ in range(epochs):
            few = rng.permutation(len(users))[:examples] if len(users) > examples else slice(None)
            loss = learn(users[few], targets[few])
            if learner is not network:
                network.set_weights(learner.get_weights())
            history.append({"loss": loss})
            bar.update()
            if valid_users is None:
                bar.set_postfix(loss=f"{loss:.3f}")
                continue
            valid_loss, valid_mrr = training.validate(lambda part: network.predict_on_batch(valid_users[part]), valid_targets)
            history[-1] |= {"valid_loss": valid_loss, "valid_mrr@20": valid_mrr}
            bar.set_postfix(loss=f"{loss:.3f}", valid_mrr=f"{valid_mrr:.4f}")
            if valid_mrr > best:
                best, best_weights = valid_mrr, network.get_weights()
    if valid_users is not None:
        network.set_weights(best_weights)
    return history


def _pass(
    network: keras.Model, learning_rate: float, steps: int, batch: int, negatives: int, shared: tf.distribute.Strategy,
    rng: np.random.Generator,
) -> Callable[[np.ndarray, np.ndarray], float]:  # fmt: skip
    """A pass of Adam over users and targets, each batch shared out among all replicas; gives the mean loss.

    The step size falls to zero over `steps`. Each step takes the targets of its batch and `negatives` other products.
    """
    last = network.layers[-1]
    body = keras.Model(network.input, last.input)
    rows = Rows(np.column_stack([last.kernel.numpy().T, last.bias.numpy()]))
    with shared.scope():
        optimizer = keras.optimizers.Adam(learning_rate)
        optimizer.build(body.trainable_variables)

    nothing = tf.zeros(0), tf.zeros(0, tf.int32), tf.zeros(0, tf.int32)  # added to single logits

    def learn(user, place, count, table, correction):
        with tf.GradientTape() as tape:
            tape.watch(table)
            inner = body(user, training=True)
            factors = tf.concat([inner, tf.ones_like(inner[:, :1])], 1), table + tf.pad(correction[:, None], [[0, 0], [inner.shape[1], 0]])
            few = tf.cast(tf.shape(user)[0], tf.float32)
            loss = few * losses.of_products(*factors, *nothing, place)  # the bias is one more number of each
            mean = loss / count  # over all shares, as gradients are summed over these
        of_table, *of_body = tape.gradient(mean, [table, *body.trainable_variables])
        optimizer.apply([tf.convert_to_tensor(gradient) for gradient in of_body], body.trainable_variables)
        return loss, tf.distribute.get_replica_context().all_reduce("SUM", tf.convert_to_tensor(of_table))

    @tf.function(autograph=False, reduce_retracing=True)  # as it holds no Python to convert
    def step(*share):
        loss, of_table = shared.run(learn, share)
        return shared.reduce("SUM", loss, axis=None), shared.experimental_local_results(of_table)[0]

    def one_pass(users: np.ndarray, targets: np.ndarray) -> float:
        order, losses = np.random.permutation(len(users)), []  # `deterministic` seeds it, so all machines draw the same
        for first in range(0, len(order), batch):
            chosen = order[first : first + batch]
            wanted, places = np.unique(targets[chosen], return_inverse=True)
            products, correction = training.sample(wanted, network.output.shape[1], negatives, rng)
            shares = np.array_split(np.arange(len(chosen)), shared.num_replicas_in_sync)
            if len(shares[-1]):  # fewer rows than replicas may be left at the end of a pass
                user, place = (
                    shared.experimental_distribute_values_from_function(lambda at: tf.constant(of[shares[at.replica_id_in_sync_group]]))
                    for of in (users[chosen], places.astype(np.int32))
                )
                rate = rows.rate(learning_rate, steps)
                optimizer.learning_rate.assign(rate)
                loss, gradient = step(user, place, *(tf.constant(x) for x in (np.float32(len(chosen)), rows.table[products], correction)))
                rows.move(products, gradient.numpy(), rate)
                losses.append(loss)
        last.kernel.assign(rows.table[:, :-1].T)
        last.bias.assign(rows.table[:, -1])
        return float(np.sum(losses)) / len(users)

    return one_pass


def recommend(network: keras.Model, vectors: np.ndarray, decay: float, decay_time: str, known: np.ndarray) -> Model:
    """The trained network as a `shelfspace.measure.ranking.Model`: from histories to scores of all products."""

    def scores(examples: Examples) -> np.ndarray:
        return network.predict_on_batch(user_embeddings(examples, vectors, decay, decay_time, known))

    return scores
