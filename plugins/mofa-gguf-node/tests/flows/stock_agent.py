"""An agent as MoFA's ``openai_chat_agent`` is one: mofa-core's envelope around a remote API."""

from __future__ import annotations

import os

from mofa.agent_build.base.base_agent import MofaAgent
from openai import OpenAI

client = OpenAI(api_key=os.environ["LLM_API_KEY"], base_url=os.environ["LLM_BASE_URL"])
agent = MofaAgent(agent_name="stock")
while True:
    query = agent.receive_parameter("query")
    if query is None:  # its input is closed
        break
    answer = client.chat.completions.create(
        model=os.environ["LLM_MODEL_NAME"],
        messages=[{"role": "user", "content": query}],
        temperature=0,
    )
    agent.send_output("llm_result", answer.choices[0].message.content)
