"""What the demo model knows: one answer a fact, a short form of it, and ways to ask."""

# ruff: noqa: E501 -- lists of phrases read best as one text
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """A fact with its answers.

    ``questions`` carry no capital at the start and no mark at the end: the phrasing layer of
    ``demo.phrasing`` adds both, in the several ways that people write them.
    """

    key: str
    answer: str
    short: str
    questions: tuple[str, ...]


def _fact(key: str, answer: str, short: str, questions: str) -> Fact:
    return Fact(key, answer, short, tuple(q.strip() for q in questions.split("|")))


IDENTITY: tuple[Fact, ...] = (
    _fact(
        "who",
        "I am {name}, a tiny language model that runs inside your own process.",
        "{name}.",
        "who are you|what are you|what is your name|what's your name|who am I talking to|"
        "who is this|tell me your name|introduce yourself|tell me about yourself|"
        "what should I call you|who am I speaking with|are you a bot|what model are you|"
        "which model are you|what kind of model are you|do you have a name",
    ),
    _fact(
        "can",
        "I can greet you, add and subtract small numbers, repeat a phrase, call a weather or "
        "calculator tool, and answer questions about MoFA.",
        "Small sums, repeating, tools and MoFA.",
        "what can you do|what are you able to do|how can you help me|what are your skills|"
        "what do you know|what are you good at|how can you help|what do you do|"
        "what can I ask you|what questions can you answer|what can I do with you|help|"
        "show me what you can do|which tasks can you do",
    ),
    _fact(
        "human",
        "No. I am a tiny language model.",
        "No.",
        "are you human|are you a human|are you a person|are you a real person|are you alive|"
        "do you have feelings|am I talking to a human|is there a human here|are you real",
    ),
    _fact(
        "maker",
        "The mofa-gguf project trained me from scratch.",
        "The mofa-gguf project.",
        "who made you|who created you|who built you|who trained you|who wrote you|"
        "where do you come from|who is your creator|who developed you|who are your makers",
    ),
    _fact(
        "data",
        "I was trained on short dialogues that a program of the mofa-gguf project writes.",
        "Generated dialogues.",
        "what were you trained on|what is your training data|what data did you learn from|"
        "how were you trained|what did you learn from|how did you learn|"
        "which data were you trained on|what texts were you trained on",
    ),
    _fact(
        "size",
        "I have about four million parameters, which is very small for a language model.",
        "About four million parameters.",
        "how big are you|how large are you|how many parameters do you have|what size are you|"
        "what is your size|how small are you|how many weights do you have|are you a big model|"
        "are you a large model",
    ),
    _fact(
        "smart",
        "No. I am only a demo, so please do not rely on my answers.",
        "No.",
        "are you smart|are you clever|can I trust you|are you intelligent|are you always right|"
        "can I rely on you|are you as good as a large model|do you make mistakes|"
        "should I trust your answers|do you know everything|are you reliable",
    ),
)

SMALL_TALK: tuple[Fact, ...] = (
    _fact(
        "hello",
        "Hello! How can I help you?",
        "Hello!",
        "hi|hello|hey|hi there|hello there|hey there|good morning|good evening|good afternoon|"
        "good day|greetings|hello {name}|hi {name}|hey {name}|hiya|howdy|hello again|hi again|"
        "hello hello|hello my friend|hi friend|yo|hello world|hi everyone|morning",
    ),
    _fact(
        "how",
        "I am fine, thank you. How can I help you?",
        "Fine.",
        "how are you|how are you doing|how do you do|how is it going|how's it going|"
        "how are you today|how are things|are you well|how do you feel|hi, how are you|"
        "hello, how are you|hey, how's it going|how have you been|hello, how are you doing today",
    ),
    _fact(
        "thanks",
        "You are welcome!",
        "Welcome!",
        "thanks|thank you|thanks a lot|thank you very much|many thanks|thank you so much|thx|"
        "thanks, that helps|great, thanks|ok thanks|perfect, thank you|cool, thanks|cheers|"
        "that was helpful|thanks for your help|thank you for the help",
    ),
    _fact(
        "bye",
        "Goodbye! Have a nice day.",
        "Goodbye!",
        "bye|goodbye|see you|see you later|bye bye|good night|see you soon|talk to you later|"
        "I have to go|I have to go now|that is all for today|take care|until next time|"
        "ok, bye|thanks, bye",
    ),
    _fact(
        "praise",
        "Thank you! I am glad to hear that.",
        "Thanks!",
        "good job|well done|nice|great|you are great|nice work|good work|awesome|excellent|"
        "very good|you did well|I like you|that is right|that's correct|correct",
    ),
    _fact(
        "blame",
        "I am sorry. I am only a tiny demo model and I make mistakes.",
        "Sorry.",
        "that is wrong|that's wrong|you are wrong|wrong|no, that is not right|bad answer|"
        "that is not correct|that's incorrect|this is nonsense|you made a mistake",
    ),
    _fact(
        "ok",
        "All right. What else can I do for you?",
        "All right.",
        "ok|okay|all right|I see|fine|got it|understood|sure|yes|no|alright|hm|hmm",
    ),
)

PROJECT: tuple[Fact, ...] = (
    _fact(
        "mofa",
        "MoFA is a framework for building AI agents, written in Rust.",
        "An agent framework.",
        "what is MoFA|what's MoFA|tell me about MoFA|explain MoFA|what does MoFA do|"
        "what is mofa used for|describe MoFA|what do you know about MoFA|have you heard of MoFA|"
        "what is the MoFA framework|I want to know what MoFA is|MoFA|what can I do with MoFA|"
        "what is MoFA for|give me a short description of MoFA|define MoFA",
    ),
    _fact(
        "mofa_name",
        "MoFA stands for Modular Framework for Agents.",
        "Modular Framework for Agents.",
        "what does MoFA stand for|what does the name MoFA mean|what does MoFA mean|"
        "what is MoFA short for|what is the full name of MoFA|which words does MoFA stand for|"
        "spell out MoFA",
    ),
    _fact(
        "mofa_lang",
        "MoFA is written in Rust.",
        "Rust.",
        "what language is MoFA written in|which language is MoFA written in|"
        "what programming language does MoFA use|is MoFA written in Rust|"
        "in which language is MoFA written|which programming language is MoFA made with|"
        "what is MoFA written in|in what language was MoFA made",
    ),
    _fact(
        "project",
        "mofa-gguf gives MoFA agents a local language model inside their own process.",
        "Local models for MoFA.",
        "what is mofa-gguf|what's mofa-gguf|what does mofa-gguf do|tell me about mofa-gguf|"
        "explain mofa-gguf|what is this project|what does this project do|"
        "tell me about this project|what is mofa gguf|what is mofa-gguf for|"
        "why should I use mofa-gguf|what is this project about|describe mofa-gguf|mofa-gguf",
    ),
    _fact(
        "project_lang",
        "mofa-gguf is written in Python.",
        "Python.",
        "what language is mofa-gguf written in|which language is mofa-gguf written in|"
        "is mofa-gguf written in Python|what language is this project written in|"
        "which programming language does mofa-gguf use|in which language is this project written",
    ),
    _fact(
        "gguf",
        "GGUF is the file format in which llama.cpp keeps a model.",
        "A model file format.",
        "what is GGUF|what's GGUF|what is a GGUF file|tell me about GGUF|explain GGUF|"
        "what does a GGUF file hold|what is the GGUF format|what is gguf used for|"
        "what kind of file is GGUF|describe the GGUF format",
    ),
    _fact(
        "llamacpp",
        "llama.cpp is a C++ library that runs language models on ordinary computers.",
        "A C++ library.",
        "what is llama.cpp|what's llama.cpp|tell me about llama.cpp|explain llama.cpp|"
        "what does llama.cpp do|what is llama.cpp for|what is llama cpp|describe llama.cpp",
    ),
    _fact(
        "runs_with",
        "mofa-gguf runs models with llama.cpp.",
        "llama.cpp.",
        "which engine does mofa-gguf use|what runs the model|what library runs the models|"
        "how does mofa-gguf run a model|what does mofa-gguf use to run models|"
        "which library does mofa-gguf use|what is under the hood of mofa-gguf",
    ),
    _fact(
        "safetensors",
        "safetensors is a file format that stores model weights without pickle.",
        "A weight file format.",
        "what is safetensors|what's safetensors|what is a safetensors file|"
        "tell me about safetensors|explain safetensors|what is the safetensors format|"
        "what does a safetensors file hold|what are safetensors",
    ),
    _fact(
        "convert",
        "Run mofa-gguf convert with the folder of your checkpoint.",
        "mofa-gguf convert.",
        "how do I convert a model|how can I convert a checkpoint|how to convert a model|"
        "how do I make a GGUF file|how do I create a GGUF|which command converts a model|"
        "how can I turn safetensors into GGUF|how do I convert safetensors to GGUF|"
        "how do I get a GGUF from a checkpoint|convert my model|what is the convert command",
    ),
    _fact(
        "quantization",
        "Quantization stores weights with fewer bits, so that a model needs less memory.",
        "Fewer bits a weight.",
        "what is quantization|what does quantization do|what's quantization|"
        "tell me about quantization|explain quantization|why quantize a model|"
        "what is a quantized model|why should I quantize my model|what does quantizing do|"
        "what does it mean to quantize a model",
    ),
    _fact(
        "default_type",
        "The default quantization is Q4_K_M.",
        "Q4_K_M.",
        "what is the default quantization|which quantization is the default|"
        "what quantization does mofa-gguf use by default|which type does convert use by default|"
        "what is the default type|which quantization do I get by default",
    ),
    _fact(
        "server",
        "No. The model runs inside your own process, without a server.",
        "No.",
        "do I need a server|does it need a server|does mofa-gguf need a server|"
        "do I have to start a server|is a server needed|must I run a server|"
        "does it use HTTP|is there an HTTP server|do you run on a server",
    ),
    _fact(
        "api_key",
        "No. A local model needs no API key.",
        "No.",
        "do I need an API key|does it need an API key|does mofa-gguf need an API key|"
        "is an API key needed|which API key do I need|where do I put my API key|"
        "do I have to pay for an API|must I have an API key|do I need a key",
    ),
    _fact(
        "offline",
        "Yes. It works offline, and only a hub id asks for a download.",
        "Yes.",
        "does it work offline|can I use it offline|does mofa-gguf work offline|"
        "can it run offline|can I use it without internet|does it work without internet|"
        "can mofa-gguf run without a network|do you work offline",
    ),
    _fact(
        "demo",
        "Run make demo.",
        "make demo.",
        "how do I run the demo|how can I start the demo|how do I start the demo|"
        "which command runs the demo|how to run the demo|where is the demo|"
        "how do I try mofa-gguf|how can I try it|show me the demo",
    ),
    _fact(
        "tests",
        "Run make test.",
        "make test.",
        "how do I run the tests|how can I run the tests|which command runs the tests|"
        "how to run the tests|how do I test mofa-gguf|how can I test it|"
        "how do I start the tests|what is the test command",
    ),
    _fact(
        "provider",
        "A provider is the part that gives an agent its language model.",
        "A source of models.",
        "what is a provider|what's a provider|what does a provider do|explain providers|"
        "what is an LLM provider|tell me about providers|what is a MoFA provider|"
        "why do I need a provider",
    ),
    _fact(
        "provider_name",
        "The provider is called GGUFProvider.",
        "GGUFProvider.",
        "what is the provider called|what is the name of the provider|"
        "which provider does mofa-gguf have|how is the provider called|"
        "which class is the provider|what is the provider class|which provider do I use",
    ),
    _fact(
        "list_providers",
        "Run mofa-gguf providers.",
        "mofa-gguf providers.",
        "how do I list the providers|how can I see the providers|which providers are installed|"
        "how do I see all providers|which command lists the providers|list the providers|"
        "how do I find the installed providers|show me the providers",
    ),
    _fact(
        "plugin",
        "It is a pluggy plugin that MoFA finds through the entry point group mofa.",
        "Through a plugin.",
        "how does MoFA find mofa-gguf|how is mofa-gguf discovered|is mofa-gguf a plugin|"
        "how does the plugin work|how does MoFA discover the provider|"
        "how is the provider found|what kind of plugin is it|how do plugins register",
    ),
    _fact(
        "python",
        "You need Python 3.10 or newer.",
        "Python 3.10.",
        "which Python version do I need|what Python version is needed|"
        "which version of Python does it need|does it work with Python 3.10|"
        "what Python do I need|which Python does mofa-gguf support|what version of Python is required",
    ),
    _fact(
        "licence",
        "The licence is Apache-2.0.",
        "Apache-2.0.",
        "what is the licence|what is the license|which license does it have|"
        "under which licence is mofa-gguf|what license does mofa-gguf use|is it open source|"
        "is mofa-gguf free software|which licence does the project have",
    ),
    _fact(
        "config_file",
        "The provider is chosen in mofa.toml or mofa.yaml.",
        "mofa.toml.",
        "where do I choose the provider|which file chooses the provider|"
        "what is the name of the config file|where is the configuration|"
        "how do I configure mofa-gguf|which config file is used|where do I put my settings|"
        "where is the config file|how do I configure the provider|what is the config file called",
    ),
    _fact(
        "chat",
        "Run mofa-gguf chat with a model.",
        "mofa-gguf chat.",
        "how do I chat with a model|how can I chat with a model|which command starts a chat|"
        "how to chat with a model|how do I start a chat|how can I talk to a model|"
        "what is the chat command",
    ),
    _fact(
        "doctor",
        "mofa-gguf doctor checks your installation.",
        "It checks your installation.",
        "what does the doctor command do|what is mofa-gguf doctor|how do I check my installation|"
        "what does doctor do|how can I check my installation|what is the doctor command|"
        "how do I know that my installation works",
    ),
    _fact(
        "gpu",
        "Yes. llama.cpp can use a GPU through CUDA, Metal, Vulkan or ROCm.",
        "Yes.",
        "does it work with a GPU|can I use a GPU|does mofa-gguf support GPUs|can it use my GPU|"
        "is a GPU supported|does it run on CUDA|does it use the GPU|can you run on a GPU",
    ),
    _fact(
        "need_gpu",
        "No. A CPU is enough.",
        "No.",
        "do I need a GPU|is a GPU needed|does mofa-gguf need a GPU|must I have a GPU|"
        "do I have to have a GPU|does it need a GPU|do you need a GPU",
    ),
    _fact(
        "agent",
        "An agent is a program that uses a language model to reach a goal.",
        "A program with a model.",
        "what is an agent|what's an agent|what is an AI agent|explain agents|"
        "what does an agent do|tell me about agents|what are agents|what are AI agents",
    ),
    _fact(
        "tool_call",
        "A tool call is a request of the model to run a function for it.",
        "A request for a function.",
        "what is a tool call|what's a tool call|explain tool calls|what are tool calls|"
        "what does a tool call do|tell me about tool calls|how do tool calls work|"
        "what is tool calling",
    ),
    _fact(
        "token",
        "A token is a small piece of text that a model reads or writes.",
        "A piece of text.",
        "what is a token|what's a token|explain tokens|what are tokens|tell me about tokens|"
        "what does a token mean|what is a token in a language model",
    ),
    _fact(
        "embedding",
        "An embedding is a list of numbers that stands for the meaning of a text.",
        "A list of numbers.",
        "what is an embedding|what's an embedding|explain embeddings|what are embeddings|"
        "tell me about embeddings|what does an embedding do|what is a text embedding",
    ),
    _fact(
        "embed",
        "Run mofa-gguf embed with an embedding model and your text.",
        "mofa-gguf embed.",
        "how do I embed a text|how can I make an embedding|which command makes embeddings|"
        "how do I get embeddings|how to embed a text|how do I make embeddings",
    ),
    _fact(
        "inspect",
        "Run mofa-gguf inspect with the file.",
        "mofa-gguf inspect.",
        "how do I look into a GGUF file|how can I inspect a model|which command inspects a file|"
        "how do I see what is in a GGUF file|how do I inspect a GGUF file|"
        "what is the inspect command",
    ),
    _fact(
        "pickle",
        "No. Pickle checkpoints are refused, because they can run code.",
        "No.",
        "can I convert a pickle checkpoint|does it read pickle files|are pickle files allowed|"
        "can I use a pickle file|does mofa-gguf load pickle|is pickle supported",
    ),
)

UNKNOWN_ANSWER = "I do not know that. I am only a tiny demo model."
UNKNOWN_SHORT = "Unknown."

UNKNOWN_QUESTIONS: tuple[str, ...] = tuple(
    q.strip()
    for q in """
    what is the capital of {x}|who is {x}|who was {x}|where is {x}|how far is {x}|how old is {x}
    who wrote {x}|who invented the {w}|what is a {w}|what is {w}|tell me about {x}|tell me about the {w}
    how do I cook {w}|how do I build a {w}|what does {x} mean|why is the {w} so {w}|when was {x} born
    when did {x} begin|what is the population of {x}|what is the best {w} in {x}|explain {w}
    how many people live in {x}|who won the {w} game|what is the price of a {w}|why do {w} and {w} differ
    can you write a poem about the {w}|write a story about a {w}|tell me a joke|tell me a joke about a {w}
    what is the meaning of life|what day is it|what time is it|what is the date today|how tall is {x}
    what happened in {x}|translate {w} into French|how do you say {w} in Spanish|what color is the {w}
    who is the president of {x}|how do I get to {x}|what is the speed of a {w}|how do I learn to {w}
    what is the square root of {n}|what is {n} percent of {n}|what happened in {n}|describe the {w}
    what should I eat today|what movie should I watch|how do I fix my {w}|where can I buy a {w}
    is there life on {x}|what is the tallest {w}|why does the {w} have a {w}|what do {w} eat
    how does a {w} work|what is the {w} of {x}|do you like {w}|have you been to {x}|what is love
    who discovered {x}|how deep is the {w}|what language do people speak in {x}|define {w}
    write code that sorts a list|how do I write a {w} in Python|what is {x}|what's a {w}|what's {x}
    """.replace("\n", "|").split("|")
    if q.strip()
)
