"""How the recommender `tied` is trained: its weights as a Keras model, the examples of a step, Adam.

The formula is told in `shelfspace.models.tied`, which answers by what is learned here.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from shelfspace.models import losses, tied, training
from shelfspace.models.tied import HABITS, POPULARITY
from shelfspace.models.training import Rows, adam, keras, tf, validate
from shelfspace.models.transitions import STEPS, Links
from shelfspace.models.users import check_decay_time
from shelfspace.sequences.arrays import EVENT_LEVELS, Corpus, Examples, passes
from shelfspace.vectors.embeddings import normalise

EXAMPLES = 250_000  # learned from in all, where the number of passes is left to the size of the log


@keras.saving.register_keras_serializable("shelfspace")
class Tied(keras.Model):
    """The weights of the recommender, saved and loaded as one ``.keras`` file; made by `start`.

    Parameters
    ----------
    n_products, dim : int
        The table of embeddings.
    links : sequence of int
        Numbers stored of each kind of link; empty for a model without them.
    visits : int
        Newest visits of a history that count.
    decay_time : {"days", "log_days", "rank"}
        How age is counted.
    attention : bool
        Whether the weights of visits depend on the products and their places, too.
    learn_decay : bool
        Whether the decay learns, or stays at `decay`.
    decay : float
        d at the start.
    temperature : float
        T, which stays: left to learn, it sharpens, and the model learns by heart.
    together : float
        beta, which is fixed: if trained, it grows too large, as co-occurrence fits the sequences that it was counted in better than later ones.
    """

    def __init__(
        self,
        n_products: int,
        dim: int,
        links: tuple[int, ...] = (),
        visits: int = 50,
        decay_time: str = "days",
        attention: bool = True,
        learn_decay: bool = True,
        decay: float = 0.7,
        temperature: float = 0.1,
        together: float = 1.0,
        **options,
    ):
        super().__init__(**options)
        self.settings = {
            "n_products": n_products, "dim": dim, "links": list(links), "visits": visits, "decay_time": decay_time,
            "attention": attention, "learn_decay": learn_decay, "decay": decay, "temperature": temperature, "together": together,
        }  # fmt: skip

        def add(name, shape, start=0.0, **kind):
            return self.add_weight(shape=shape, initializer=keras.initializers.Constant(start), name=name, **kind)

        def mixing(name, rows, columns=dim):
            spread = keras.initializers.RandomNormal(stddev=rows**-0.5)
            return self.add_weight(shape=(rows, columns), initializer=spread, name=name)

        self.log_decay = add("log_decay", (), np.log(max(decay, 1e-9)), trainable=learn_decay)
        self.event_bias = add("event_bias", (len(EVENT_LEVELS),))
        self.repeat, self.repeat_event = add("repeat", (visits,)), add("repeat_event", (len(EVENT_LEVELS),))
        self.habit_inner, self.habit_bias = mixing("habit_inner", len(HABITS) + len(POPULARITY), 16), add("habit_bias", (16,))
        self.habit_outer = add("habit_outer", (16,))
        if attention:
            self.of_visit, self.of_last = mixing("of_visit", dim), mixing("of_last", dim)
            self.of_place, self.attention = add("of_place", (visits, dim)), add("attention", (dim,))
        self.inner, self.inner_bias = mixing("inner", 2 * dim), add("inner_bias", (dim,))
        self.outer = add("outer", (dim, dim))
        self.link_weight, self.log_link_scale = add("link_weight", (len(STEPS),), 0.5), add("log_link_scale", (len(STEPS),))
        self.alone = add("alone", (n_products,), trainable=False)
        # Not trained by Keras: `train` moves the rows of the table that a step touches.
        self.table = add("table", (n_products, dim + 1), trainable=False)  # the last column is the bias
        self.link_tables = [
            [
                add(f"link_counts_{k}", (n,), trainable=False),
                add(f"link_products_{k}", (n,), trainable=False, dtype="int32"),
                add(f"link_offsets_{k}", (n_products + 1,), trainable=False, dtype="int32"),
            ]
            for k, n in enumerate(links)
        ]
        self.built = True

    def get_config(self) -> dict:
        """What `__init__` needs to make the same model."""
        return super().get_config() | self.settings

    def save_own_variables(self, store) -> None:
        """Write the weights by name, so that `shelfspace.models.tied.load` can tell them apart."""
        for variable in self.variables:
            store[variable.name] = variable.numpy()

    def load_own_variables(self, store) -> None:
        """Read what `save_own_variables` wrote."""
        for variable in self.variables:
            variable.assign(store[variable.name])

    def learned(self) -> tied.Learned:
        """All that answers, as it is now."""
        return tied.Learned.of_weights(self.settings, {variable.name: variable.numpy() for variable in self.variables})

    def users(self, v, age, event, place, row, newest):
        """The query q of each history, before it is brought to length 1; float32, shape (n, dim).

        Parameters
        ----------
        v : tensor of float32, shape (m, dim)
            Embeddings of the visits of all histories, one history after the other.
        age, event, place, row : shape (m,)
            Of each visit: its age, event code, how many visits came after it, and number of its history.
        newest : shape (n,)
            Where the newest visit of each history stands.
        """
        n = tf.shape(newest)[0]
        last = tf.gather(v, newest)
        logit = tf.gather(self.event_bias, event) - tf.exp(self.log_decay) * age
        if self.settings["attention"]:
            hidden = v @ self.of_visit + tf.gather(last @ self.of_last, row) + tf.gather(self.of_place, place)
            logit += tf.linalg.matvec(tf.sigmoid(hidden), self.attention)
        top = tf.stop_gradient(tf.math.unsorted_segment_max(logit, row, n))
        w = tf.exp(logit - tf.gather(top, row))
        total = tf.math.unsorted_segment_sum(w, row, n)
        u = tf.math.unsorted_segment_sum(w[:, None] * v, row, n) / total[:, None]
        return u + tf.nn.relu(tf.concat([u, last], axis=1) @ self.inner + self.inner_bias) @ self.outer

    def factors(self, q, v, bias):
        """Of each query and of each product dim + 1 numbers whose product is cos(q, v_j) / T + bias_j; of v (m, dim) and bias (m, 1)."""
        unit = tf.math.l2_normalize(q, 1, 1e-8) / self.settings["temperature"]
        return tf.concat([unit, tf.ones_like(unit[:, :1])], 1), tf.concat([tf.math.l2_normalize(v, 1, 1e-8), bias], 1)

    def repeat_bonus(self, place, event, habits, popularity):
        """r_i + s(e_i) + o . relu(H [h, bias_j, bias_last] + g): what a product j gains that was seen i visits ago.

        Parameters
        ----------
        place, event : shape (k,)
            i of each, and the event code of that visit.
        habits : shape (k, len(HABITS))
            Of its history.
        popularity : shape (k, len(POPULARITY))
            The bias of the product, and that of the newest product of its history.
        """
        hidden = tf.nn.relu(tf.concat([habits, popularity], axis=1) @ self.habit_inner + self.habit_bias)
        return tf.gather(self.repeat, place) + tf.gather(self.repeat_event, event) + tf.linalg.matvec(hidden, self.habit_outer)

    def link_bonus(self, kind, value):
        """alpha_k log(1 + kappa_k n_k), kinds and values as `Links.after` gives them."""
        return tf.gather(self.link_weight, kind) * tf.math.log1p(tf.gather(tf.exp(self.log_link_scale), kind) * value)


def start(
    vectors: np.ndarray,
    known: np.ndarray,
    corpus: Corpus,
    product_ids: np.ndarray,
    *,
    transitions: bool = True,
    seed: int = 0,
    **settings,
) -> Tied:
    """A model ready to train: the table at the pre-trained embeddings, the bias at popularity, transitions counted.

    Call `shelfspace.models.training.deterministic` before for the same weights in every run.

    Parameters
    ----------
    vectors : ndarray of float32, shape (n_products, dim)
        Brought to length 1.
    known : ndarray of bool, shape (n_products,)
        Products without an embedding start near zero, at random.
    corpus : Corpus
        All that may train (`shelfspace.sequences.arrays.corpus` with the targets); what is counted, is counted in it.
    product_ids : ndarray of str, shape (n_products,)
        The product table, sorted.
    transitions : bool
        Whether scores know what came after what, and what came with what.
    seed : int
    settings
        See `Tied`.

    Raises
    ------
    ValueError
        If a setting is out of its range, naming what is allowed.
    """
    check_decay_time(settings.get("decay_time", "days"))
    if settings.get("visits", 1) < 1:
        raise ValueError(f"visits is {settings['visits']}; it must be 1 (the newest alone) or more.")
    n_products, dim = vectors.shape
    links = Links.count(corpus, product_ids) if transitions else None
    tables = [*links.steps, links.pairs] if links else []
    model = Tied(n_products, dim, [table.nnz for table in tables], **settings)
    for parts, table in zip(model.link_tables, tables):
        for part, values in zip(parts, (table.data, table.indices, table.indptr)):
            part.assign(values)
    if links:
        model.alone.assign(links.alone)
    noise = np.random.default_rng(seed).normal(0, 0.01, vectors.shape)
    bias = 0.3 * np.log1p(np.bincount(corpus.places(product_ids), minlength=n_products))
    model.table.assign(np.column_stack([np.where(known[:, None], normalise(vectors), noise), bias]))
    return model


def fit(
    path: str | Path,
    vectors: np.ndarray,
    known: np.ndarray,
    corpus: Corpus,
    product_ids: np.ndarray,
    examples: Examples,
    valid: Examples,
    *,
    strength: float,
    seed: int,
    **settings,
) -> list[dict[str, float]]:
    """Start from embeddings and counts, train and write to a file: for `shelfspace.files.run_files.once`.

    Parameters
    ----------
    path : str or Path
        Of a ``.keras`` file.
    vectors, known, corpus, product_ids
        See `start`.
    examples, valid
        See `train`.
    strength : float
        Of recency; see `recency`.
    seed : int
    settings
        What else `train` takes.

    Returns
    -------
    list of dict
        As `train`.
    """
    training.deterministic(seed)
    network = start(vectors, known, corpus, product_ids, decay_time="days", seed=seed)
    history = train(network, examples, valid, chances=recency(examples, strength), seed=seed, **settings)
    network.save(path)
    return history


def train(
    model: Tied,
    examples: Examples,
    valid: Examples | None = None,
    *,
    epochs: int = 0,
    batch: int = 512,
    learning_rate: float = 0.009,
    dropout: float = 0.4,
    negatives: int = 2048,
    full_below: int = 4096,
    chances: np.ndarray | None = None,
    limit: int = 1_000_000,
    seed: int = 0,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Fit by cross-entropy with Adam, whose step size falls linearly to zero over all epochs.

    A row of the table moves only in steps that hold it (`shelfspace.models.training.Rows`).

    Parameters
    ----------
    model : Tied
        From `start`; changed in place.
    examples : Examples
        Of sequences of the corpus that `start` counted: their `trained` parts are left out of the counts.
    valid : Examples, optional
        Measured after every epoch; the weights of the epoch with the best MRR@20 are kept. Without, the last ones.
    epochs : int
        Passes over the examples; 0 for as many as make about `EXAMPLES` in all (`shelfspace.sequences.arrays.passes`).
    batch : int
        Examples per step.
    learning_rate : float
        Adam's step size at the start.
    dropout : float
        Share of the numbers of each history's embeddings that are left out at random.
    negatives : int
        Products drawn at each step (`shelfspace.models.training.sample`) beside those that matter: the batch's histories and
        targets, and at most so many that came after the histories most often.
    full_below : int
        Catalogues up to this size are trained with all products at every step.
    chances : ndarray of float, shape (n,), optional
        Chance of each example to be taken in the last epoch, above 0 and up to 1 (`recency`). The first of several epochs takes all,
        those between have powers of the chance. By default, all epochs take all.
    limit : int
        An epoch takes at most so many examples, drawn anew each time.
    seed : int
        Of the order of examples, dropout and the drawn products.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list of dict
        Per epoch: "loss", and with valid examples "valid_loss" and "valid_mrr@20".

    Raises
    ------
    ValueError
        If there is no example.
    """
    if not len(examples):
        raise ValueError("There is no training example; give a longer log.")
    n_products, n, rng = model.settings["n_products"], len(examples), np.random.default_rng(seed)
    links = model.learned().links
    full = n_products <= full_below
    rows = Rows(model.table.numpy())
    take = _stepper(model, dropout, seed)

    def prepared(chosen: np.ndarray) -> tuple[np.ndarray, dict]:
        """The products of a step and its batch, in which product numbers are places among them."""
        part = examples[chosen]
        h = tied.histories(part, model.settings["visits"], model.settings["decay_time"])
        after = links.after(part)
        if full:
            products, correction = np.arange(n_products), np.zeros(n_products, dtype=np.float32)
        else:
            _, product, _, count = after
            often = count >= 2
            total = np.bincount(product[often], count[often], n_products)
            followed = np.flatnonzero(total)
            followed = followed[np.argsort(-total[followed], kind="stable")[:negatives]]
            always = np.unique(np.concatenate([h.items, part.target, followed]))
            products, correction = training.sample(always, n_products, negatives, rng)
        place = np.full(n_products, -1, dtype=np.int32)
        place[products] = np.arange(len(products), dtype=np.int32)
        alike = tied.alike(links, model.settings["decay"], part, h, place >= 0)
        items, followers, companions = place[h.items], place[after[1]], place[alike[1]]
        inside = followers >= 0
        again = h.row[h.repeats], items[h.repeats]
        return products, {
            "items": items, "age": h.age, "event": h.event, "place": h.place, "row": h.row, "newest": h.newest,
            "target": place[part.target], "correction": correction,
            "repeat": again[1], "repeat_last": items[h.newest[again[0]]], "habits": h.habits, "repeat_place": h.place[h.repeats],
            "repeat_event": h.event[h.repeats], "link_kind": after[2][inside], "link_value": after[3][inside],
            "together": np.float32(model.settings["together"]) * np.log1p(tied.TOGETHER_SCALE * alike[3]),
            "bonus_row": np.concatenate([again[0], after[0][inside], alike[0]]),  # of repeats, links, and what goes together
            "bonus_column": np.concatenate([again[1], followers[inside], companions]),
        }  # fmt: skip

    epochs = epochs or passes(min(n, limit), EXAMPLES, least=1)
    chances = np.ones(n) if chances is None else chances
    orders = [np.flatnonzero(rng.random(n) < chances**power) for power in (np.linspace(0, 1, epochs) if epochs > 1 else [1.0])]
    orders = [rng.permutation(order if len(order) else n)[:limit] for order in orders]
    steps, best, history = sum(-(-len(order) // batch) for order in orders), -1.0, []
    with tqdm(total=steps, desc="tied", unit="step", disable=not progress) as bar, ThreadPoolExecutor(1) as worker:
        for order in orders:
            losses = []
            chunks = [order[first : first + batch] for first in range(0, len(order), batch)]
            following = worker.submit(prepared, chunks[0])  # the next batch is made while this one is learned from
            for i in range(len(chunks)):
                products, ready = following.result()
                if i + 1 < len(chunks):
                    following = worker.submit(prepared, chunks[i + 1])
                rate, t = rows.rate(learning_rate, steps), np.float32(rows.steps + 1)
                gradient, loss = take(rows.table[products], ready, rate, t)
                rows.move(products, gradient.numpy(), rate)
                losses.append(loss)
                bar.update()
            model.table.assign(rows.table)
            history.append({"loss": float(np.average([float(x) for x in losses], weights=[len(c) for c in chunks]))})
            if valid is not None:
                scores = tied.recommend(model.learned())
                loss, mrr = validate(lambda part: scores(valid[part]), valid.target)
                history[-1] |= {"valid_loss": loss, "valid_mrr@20": mrr}
                if mrr > best:
                    best, weights = mrr, model.get_weights()
            bar.set_postfix({name: f"{value:.4f}" for name, value in history[-1].items()})
    if valid is not None:
        model.set_weights(weights)
    return history


def recency(examples: Examples, strength: float) -> np.ndarray:
    """Chances for `train` that make it see recent examples more often; float64, shape (n,).

    exp(-strength · age), where age runs from 0 for the newest example to 1 for the oldest, by time where the visits have
    different times, else by the examples' order. Tastes drift: the test users come after the training users.

    Raises
    ------
    ValueError
        If `strength` is negative.
    """
    if strength < 0:
        raise ValueError(f"The strength of recency is {strength}; it must be 0 (all examples alike) or more.")
    time = examples.times[examples.end - 1]
    if np.ptp(time) == 0:
        time = np.arange(len(examples), dtype=float)
    return np.exp(-strength * (time.max() - time) / max(np.ptp(time), 1e-12))


def _stepper(model: Tied, dropout: float, seed: int) -> Callable:
    """One step of training: from the table's rows and a batch to their gradient and the loss; all but the table is moved.

    t is the number of the step.
    """
    small = [variable.value for variable in model.trainable_variables]
    moments = [(tf.Variable(tf.zeros_like(v)), tf.Variable(tf.zeros_like(v))) for v in small]

    def spec(names, kind, *width):
        return {name: _spec(name, kind, *width) for name in names.split()}

    batches = (
        spec("items event place row newest target repeat repeat_last repeat_place repeat_event link_kind bonus_row bonus_column", tf.int32)
        | spec("age correction link_value together", tf.float32)
        | spec("habits", tf.float32, len(HABITS))
    )
    number = tf.TensorSpec((), tf.float32)
    rows = tf.TensorSpec((None, model.settings["dim"] + 1), tf.float32)

    @tf.function(autograph=False, input_signature=[rows, batches, number, number])  # as it holds no Python to convert
    def take(table, batch, rate, t):  # traced but once
        with tf.GradientTape() as tape:
            tape.watch(table)
            v, bias = tf.split(table, [model.settings["dim"], 1], axis=1)
            seen = tf.gather(v, batch["items"])
            kept = tf.random.stateless_uniform(tf.shape(seen), tf.stack([seed, tf.cast(t, tf.int32)])) >= dropout
            seen = tf.where(kept, seen / (1 - dropout), 0.0)
            q = model.users(seen, *(batch[name] for name in ("age", "event", "place", "row", "newest")))
            popularity = tf.gather(bias[:, 0], tf.stack([batch["repeat"], batch["repeat_last"]], 1))
            again = model.repeat_bonus(batch["repeat_place"], batch["repeat_event"], batch["habits"], popularity)
            linked = model.link_bonus(batch["link_kind"], batch["link_value"])
            bonus = tf.concat([again, linked, batch["together"]], 0)
            factors = model.factors(q, v, bias + batch["correction"][:, None])
            loss = losses.of_products(*factors, bonus, batch["bonus_row"], batch["bonus_column"], batch["target"])
        of_table, *of_small = tape.gradient(loss, [table, *small], unconnected_gradients="zero")
        for gradient, value, (first, second) in zip(of_small, small, moments):
            moved = adam(tf.convert_to_tensor(gradient), value, first, second, rate, t)
            for variable, new in zip((value, first, second), moved):
                variable.assign(new)
        return tf.convert_to_tensor(of_table), loss

    return take


def _spec(name: str, kind: tf.DType, *width: int) -> tf.TensorSpec:
    """Of an argument with any number of rows."""
    return tf.TensorSpec((None, *width), kind, name)
