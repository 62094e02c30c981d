"""A MoFA agent as mofa-core makes them, beside ours: it asks and prints what it gets."""

from __future__ import annotations

from mofa.agent_build.base.base_agent import MofaAgent

agent = MofaAgent(agent_name="asker")
agent.event = {"metadata": {}}
agent.send_output("query", "What is MoFA?")
print("answer:", agent.receive_parameter("answer"))
