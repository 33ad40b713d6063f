"""Asks the saved model questions through `transformers`: samples to read, and the cases of the evaluation."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from held_out import Json

PROMPTS: list[list[str]] = [  # the user's turns of one conversation each
    ["Hello!"], ["who are you"], ["What can you do?"], ["What is a violin?", "give me an example", "what kind of thing is it?"], ["Define courage."], ["what does happy mean"],
    ["What is a zorbleflax?"], ["What is 7 times 8?", "and plus 4?"], ["what is 23 + 58"], ["Anna has 12 apples and gives 5 to Ben. How many apples does Anna have left?"],
    ["Is 37 even or odd?"], ["Count from 1 to 12."], ["Why does Baton separate prefill and decode?"], ["What is the KV cache?"], ["how do i start baton"], ["What is TTFT?", "And ITL?"],
    ["What happens if a decode worker dies?"], ["How does Baton work?"], ["Who won the world cup in 1998?"], ["Write a Python function that sorts a list."], ["What is the capital of France?"],
    ["List five animals."], ["Tell me a story about a fox."], ["Tell me about elephants."], ["My name is Maria.", "What is an owl?", "What is my name?"],
    ["What is the opposite of hot?"], ["whats the diference between prefill and decode"],
    ["The code of Anna is 4711. Tom has a red bicycle. Eve is in the library. Where is Eve?", "What color is Tom's bicycle?", "What is the code of Anna?"], ["Thank you, goodbye!"],
    ["What is a tree and why is it green?"], ["Explain how disaggregated serving works to me please"], ["What is the largest planet?"],
]


class Served:
    def __init__(self, folder: Path, device: torch.device):
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to(device).eval()
        self.device = device

    def answers(self, chats: list[list[dict]], tokens_max: int) -> list[str]:
        """Greedy answers to a batch of conversations."""
        texts = [self.tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats]
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(self.device)
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, max_new_tokens=tokens_max, do_sample=False, temperature=None, top_p=None, top_k=None)
        return self.tokenizer.batch_decode(out[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)

    def talks(self, systems: list[str], turns: list[list[str]], tokens_max: int) -> list[list[dict]]:
        """Whole conversations; all of them take each turn together."""
        chats = [[{"role": "system", "content": system}] if system else [] for system in systems]
        for turn in range(max(map(len, turns))):
            live = [i for i, asked in enumerate(turns) if turn < len(asked)]
            for i in live:
                chats[i].append({"role": "user", "content": turns[i][turn]})
            for i, said in zip(live, self.answers([chats[i] for i in live], tokens_max)):
                chats[i].append({"role": "assistant", "content": said})
        return chats

    def show(self, tokens_max: int) -> list[dict]:
        """Prints and returns the conversations of `PROMPTS`."""
        chats = self.talks([""] * len(PROMPTS), PROMPTS, tokens_max)
        for chat in chats:
            print("\n".join(f"{'>' if m['role'] == 'user' else ' '} {m['content']}" for m in chat), end="\n\n", flush=True)
        return [{"messages": c} for c in chats]

    def evaluation(self, cases: list[Json], tokens_max: int) -> list[list[dict]]:
        """The conversations of the held-out cases."""
        return self.talks([c["system"] for c in cases], [c["turns"] for c in cases], tokens_max)
