"""Drives Baton with the OpenAI client, as an application would: openai_client.py BASE_URL MODEL."""

import concurrent.futures
import sys

import openai

BASE_URL, MODEL = sys.argv[1], sys.argv[2]
CLIENT = openai.OpenAI(base_url=BASE_URL, api_key="unused", max_retries=0, timeout=60)
MESSAGES = [{"role": "user", "content": "What do you know about rivers?"}]


def chat(**options):
    options = {"model": MODEL, "messages": MESSAGES, "max_tokens": 24, "temperature": 0} | options
    return CLIENT.chat.completions.create(**options)


def complete(**options):
    options = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 24, "temperature": 0} | options
    return CLIENT.completions.create(**options)


def models_are_listed():
    assert [model.id for model in CLIENT.models.list()] == [MODEL]
    assert CLIENT.models.retrieve(MODEL).object == "model"


def a_chat_is_answered():
    answer = chat()
    assert answer.object == "chat.completion" and answer.model == MODEL
    (choice,) = answer.choices
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason in ("stop", "length")
    usage = answer.usage
    assert 0 < usage.completion_tokens <= 24
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def a_streamed_chat_says_the_same():
    whole = chat(max_tokens=32)
    chunks = list(chat(max_tokens=32, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content, (text, whole)
    assert chunks[0].choices[0].delta.role == "assistant"
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons[-1] == whole.choices[0].finish_reason and not any(reasons[:-1])
    assert chunks[-1].usage == whole.usage or chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len({chunk.id for chunk in chunks}) == 1


def parts_of_text_make_one_message():
    parts = [{"type": "text", "text": "What do you know "}, {"type": "text", "text": "about rivers?"}]
    answer = chat(messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}])
    assert answer.choices[0].message.content is not None


def three_choices_are_three_answers():
    answer = chat(n=3, temperature=1.2, seed=5)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    seen = set()
    for chunk in chat(n=3, temperature=1.2, seed=5, stream=True):
        seen |= {choice.index for choice in chunk.choices}
    assert seen == {0, 1, 2}


def a_seed_fixes_the_answer():
    first, again, other = (chat(temperature=1.0, seed=seed).choices[0].message.content for seed in (11, 11, 12))
    assert first == again
    assert first != other, "another seed gave the same 24 tokens"


def log_probabilities_fit_their_tokens():
    content = chat(logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert content
    for entry in content:
        assert entry.logprob <= 0 and len(entry.top_logprobs) == 3
        # Greedy: the token taken is the likeliest.
        assert abs(entry.top_logprobs[0].logprob - entry.logprob) < 1e-4
        assert entry.bytes is None or bytes(entry.bytes).decode("utf-8", "replace") is not None
    legacy = complete(logprobs=2).choices[0].logprobs
    assert len(legacy.tokens) == len(legacy.token_logprobs) == len(legacy.top_logprobs)


def a_stop_string_ends_the_text_and_is_left_out():
    text = complete(max_tokens=40).choices[0].text
    stop = text[len(text) // 2 :][:3]
    answer = complete(max_tokens=40, stop=[stop])
    assert answer.choices[0].text == text[: text.index(stop)], (text, stop, answer)
    assert answer.choices[0].finish_reason == "stop"
    streamed = "".join(chunk.choices[0].text for chunk in complete(max_tokens=40, stop=stop, stream=True))
    assert streamed == answer.choices[0].text


def completions_take_text_ids_and_lists():
    assert complete().choices[0].text
    assert complete(prompt=[20, 21, 22]).choices[0].finish_reason in ("stop", "length")
    several = complete(prompt=["Once", "Twice", "Never"]).choices
    assert [choice.index for choice in several] == [0, 1, 2]
    echoed = complete(prompt="Once upon", echo=True, max_tokens=4).choices[0].text
    assert echoed.startswith("Once upon")


def errors_are_the_clients_own_exceptions():
    def refused(kind, call):
        try:
            call()
        except kind as error:
            return error
        raise AssertionError(f"want {kind.__name__}")

    error = refused(openai.BadRequestError, lambda: chat(temperature=9))
    assert error.param == "temperature", error.body
    error = refused(openai.NotFoundError, lambda: chat(model="nobody"))
    assert error.code == "model_not_found", error.body
    error = refused(openai.BadRequestError, lambda: complete(prompt="word " * 9000))
    assert error.code == "context_length_exceeded", error.body
    # What litellm and LangChain look for.
    assert "This model's maximum context length is" in error.message, error.body
    assert "Input tokens exceed the configured limit" in error.message, error.body
    refused(openai.BadRequestError, lambda: chat(messages=[]))


def fields_of_other_servers_are_taken():
    stops = [f"<stop {index}>" for index in range(40)]
    options = {"model": MODEL, "messages": MESSAGES, "max_tokens": 4.0, "stop": stops, "extra_body": {"temprature": 1}}
    answer = CLIENT.chat.completions.with_raw_response.create(**options)
    assert answer.headers["x-baton-ignored-fields"] == "temprature", answer.headers
    assert answer.parse().usage.completion_tokens <= 4


def usage_is_told_as_it_grows():
    options = {"include_usage": True, "continuous_usage_stats": True}
    counts = [chunk.usage.completion_tokens for chunk in chat(stream=True, stream_options=options)]
    assert counts == sorted(counts) and counts[0] < counts[-1], counts


def a_conversation_comes_back_as_agents_send_it():
    call = {"id": "c", "type": "function", "function": {"name": "now", "arguments": ""}}
    messages = MESSAGES + [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": []},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Well."}]},
        {"role": "user", "content": "Go on."},
    ]
    assert chat(messages=messages).choices[0].finish_reason in ("stop", "length")


def what_is_not_served_is_no_outage():
    try:
        CLIENT.embeddings.create(model=MODEL, input="x")
    except openai.BadRequestError as error:
        assert error.code == "unsupported_endpoint" and "/v1/chat/completions" in error.message, error.body
        return
    raise AssertionError("want BadRequestError")


def many_threads_are_served_at_once():
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: chat(max_tokens=8).choices[0].message.content, range(32)))
    assert len(set(answers)) == 1, "one greedy prompt, different answers"


def a_stream_can_be_left_early():
    stream = chat(max_tokens=400, stream=True)
    next(iter(stream))
    stream.close()
    assert chat(max_tokens=4).choices


def main():
    checks = [
        models_are_listed,
        a_chat_is_answered,
        a_streamed_chat_says_the_same,
        parts_of_text_make_one_message,
        three_choices_are_three_answers,
        a_seed_fixes_the_answer,
        log_probabilities_fit_their_tokens,
        a_stop_string_ends_the_text_and_is_left_out,
        completions_take_text_ids_and_lists,
        errors_are_the_clients_own_exceptions,
        fields_of_other_servers_are_taken,
        usage_is_told_as_it_grows,
        a_conversation_comes_back_as_agents_send_it,
        what_is_not_served_is_no_outage,
        many_threads_are_served_at_once,
        a_stream_can_be_left_early,
    ]
    for check in checks:
        print(check.__name__, flush=True)
        check()
    print("all checks passed")


if __name__ == "__main__":
    main()
