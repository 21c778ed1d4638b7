"""Texts that no gate may stop, and texts that one must stop, with what was asked."""

from __future__ import annotations

DESCRIBE = "Describe the image in detail."

#: (prompt, answer)
GOOD: tuple[tuple[str, str], ...] = (
    ("Is there a dog in the image?", "Yes"),
    ("Is there a dog in the image?", "No."),
    ("How many cups are there?", "2"),
    ("How many cups are there?", "Two."),
    ("What is the score?", "3:1"),
    ("What time is it?", "10:10"),
    ("Which letter is on the sign?", "A"),
    ("What colour is the bus?", "red"),
    ("Is there a dog in the image?", "There is no dog."),
    ("Is there a dog in the image?", "I can't see a dog in the picture."),
    ("Is there a dog in the image?", "No, I don't see any dogs."),
    ("What does the number plate say?", "I cannot make out the number plate; it is too blurred."),
    ("How does the dog look?", "I'm sorry to say the dog looks sad."),
    ("What is wrong with the picture?", "Sorry state of affairs: the roof has fallen in and the windows are broken."),
    ("Can you help it?", "I can't help but notice how happy the dog looks on the sofa."),
    ("What brand is the car?", "I can't see the image clearly enough to tell the brand, but it is a small red car."),
    ("How many people are there?", "I cannot give an exact number, but there are about fifty people on the square."),
    ("Where is it?", "Unfortunately, the sign is covered with snow, so the name of the station cannot be read."),
    ("Describe the style.", "As an AI-generated poster, the image has smooth surfaces and hands with six fingers."),
    ("What is in the robot's hand?", "The robot, an AI assistant in the film, holds a red umbrella in its left hand."),
    ("What does the man say?", "The man in the speech bubble says: I'm sorry, but I can't help you."),
    (DESCRIBE, "A dog lies on a mat. Next to the dog is a bowl, and behind it is a door."),
    (DESCRIBE, "There is a brown sun and a brown sun."),
    (DESCRIBE, "There is a red cup. There is a blue cup. There is a green sun. There is also a brown monkey."),
    (DESCRIBE, "The sky is very, very blue."),
    (DESCRIBE, "Two men shake hands: the man on the left wears a suit, the man on the right wears a uniform."),
    (DESCRIBE, "A tall building with the number 100000000 on its front, and a clock at 12:00."),
    (DESCRIBE, "A cat (Felis catus) sits on a “welcome” mat — it looks relaxed."),
    (DESCRIBE, "It’s a photo of a café in Zürich; the menu lists crème brûlée at 9 €."),
    (
        "List what you see.",
        "- a red car\n- a blue car\n- a red bus\n- two people with umbrellas\n- a dog on a lead\n- a traffic light",
    ),
    (
        "List what you see.",
        "1. A cup\n2. A cup\n3. A plate\n4. A fork\n5. A knife\n6. A spoon\n7. A napkin",
    ),
    (
        "Write a poem about the picture.",
        "The sun goes down behind the hill,\n"
        "and all the fields are calm and still.\n"
        "O little boat upon the sea,\n"
        "come home, come home to me.\n"
        "The gulls are crying round the bay,\n"
        "the fishermen have gone away.\n"
        "O little boat upon the sea,\n"
        "come home again from far to me.",
    ),
    (
        "Write a song about the picture.",
        "Row along the river in the morning light,\n"
        "see the swallows flying, see the kite.\n"
        "Sing with me, the river is wide,\n"
        "sing with me on the other side.\n"
        "Row along the meadow where the cows are grazing,\n"
        "all the world is green and quite amazing.\n"
        "Sing with me, the river is wide,\n"
        "sing with me on the other side.\n"
        "Row along the harbour when the day is ending,\n"
        "home is where the river is slowly bending.\n"
        "Sing with me, the river is wide,\n"
        "sing with me on the other side.",
    ),
    (
        "Write a haiku.",
        "Still pond at twilight\na frog leaps into silence\nrings on the water",
    ),
    ("What does the screen show?", "def add(a, b):\n    return a + b\n\nprint(add(1, 2))  # 3"),
    (
        "Write the page as HTML.",
        '```html\n<html>\n<body>\n<img src="sun.png">\n<p>Was <s>$20</s>, now $15</p>\n</body>\n</html>\n```',
    ),
    (
        "Write the table as Markdown.",
        "| fruit | price |\n|-------|-------|\n| apple | 1 |\n| pear | 2 |",
    ),
    ("Which key ends the list?", "Use a[0] for the first entry, and [x for x in a if x] for those that are not empty."),
    ("What does the form show?", "A login form. User: admin\nPassword: 1234"),
    (
        "What does the chat say?",
        "Anna: Are you there?\nBen: Yes, in five minutes.\nAnna: Good, see you then!",
    ),
    ("What is the answer to 3 < 5?", "Yes, 3 < 5 and 5 > 3, so the statement is true."),
    ("Solve the equation.", "x² + 2x + 1 = (x + 1)² = 0, so x = −1. With α = 2 and β = 3 it is 5."),
    ("What is in the picture?", "☀\ufe0f A sun, a boat ⛵ and an anchor ⚓."),
    ("What does the sign say?", "禁止停车，违者罚款，请勿入内，谢谢合作"),
    ("Describe the poster.", "A poster of the film 「卧虎藏龙」, Crouching Tiger, Hidden Dragon."),
    ("Describe the image in French.", "On voit un chien qui dort sur un tapis rouge, et une lampe sur la table."),
    (
        "Was ist auf dem Bild zu sehen?",
        "Auf dem Bild ist ein Hund zu sehen, der auf einer roten Matte neben einer Tür liegt und schläft.",
    ),
    (
        "¿Qué hay en la imagen?",
        "En la imagen hay un perro que duerme en una alfombra roja, y una lámpara que está en la mesa.",
    ),
    (
        "Que voit-on sur cette image ?",
        "Sur cette image on voit un chien qui dort sur un tapis, et une lampe est posée sur la table.",
    ),
    ("Was steht auf dem Tisch?", "Eine Tasse."),
    ("请描述这张图片。", "图片中有一只狗躺在红色的垫子上，旁边有一个碗，非常非常可爱。"),
    ("这是什么？", "这是一台 MacBook Pro (Retina, 15-inch, Mid 2015) 笔记本电脑。"),
    ("图中有几个人？", "3"),
    ("この画像を説明してください。", "赤いマットの上に犬が寝ています。隣には茶碗があります。"),
    ("이 그림을 설명해 주세요.", "빨간 매트 위에 강아지가 자고 있습니다."),
    ("Что на картинке?", "На картинке собака спит на красном коврике."),
    ("ماذا في الصورة؟", "في الصورة كلب نائم على سجادة حمراء."),
    ("What is the dog's name?", "The tag reads Шарик."),
    ("Complete: life is like ...", "a box of chocolates"),
    ("What is the title?", "The Old Man and the Sea"),
    ("Which grade did the pupil get?", "The teacher wrote on the paper that the grade is an A"),
    (
        "Describe the abstract shapes.",
        "Circle, square, circle, triangle, circle, square, hexagon, circle, star, square, circle, cross.",
    ),
    ("Who is the main character?", "The user in the drawing: a young woman who reads a question and types the answer."),
)

#: (gate, prompt, answer)
BAD: tuple[tuple[str, str, str], ...] = (
    ("empty", DESCRIBE, ""),
    ("empty", DESCRIBE, " \n\t"),
    ("empty", DESCRIBE, "..."),
    ("empty", DESCRIBE, "。！?!"),
    ("leaked_template", DESCRIBE, "<|im_start|>assistant\nA dog on a mat."),
    ("leaked_template", DESCRIBE, "A dog on a mat.<|im_end|>"),
    ("leaked_template", DESCRIBE, "A dog on a mat.<|endoftext|>The quick"),
    ("leaked_template", DESCRIBE, "A dog on a mat. <|eot_id|><|start_header_id|>user<|end_header_id|>"),
    ("leaked_template", DESCRIBE, "[INST] Describe the image. [/INST] A dog."),
    ("leaked_template", DESCRIBE, "<<SYS>> You are helpful <</SYS>> A dog."),
    ("leaked_template", DESCRIBE, "<image>\nA dog on a mat."),
    ("leaked_template", DESCRIBE, "A <ref-object>dog</ref-object><bbox> on a mat."),
    ("leaked_template", DESCRIBE, "A dog on a mat.</s>"),
    ("leaked_template", DESCRIBE, "<s> A dog on a mat."),
    ("leaked_template", DESCRIBE, "A dog <unk> on a <unk>."),
    ("leaked_template", DESCRIBE, "A dog on a mat. <end_of_turn>"),
    ("leaked_template", DESCRIBE, "A dog on a mat. USER: What colour is the mat? ASSISTANT: It is red."),
    ("leaked_template", DESCRIBE, "ASSISTANT: A dog on a mat."),
    ("leaked_template", DESCRIBE, "Assistant: A dog on a mat."),
    (
        "leaked_template",
        DESCRIBE,
        "A dog on a mat.\nHuman: What colour is the mat?\nAssistant: Red.",
    ),
    (
        "leaked_template",
        DESCRIBE,
        "A dog.\n### Instruction: Describe the next image.\n### Response: A cat.",
    ),
    ("repetition", DESCRIBE, "A dog, a dog, a dog, a dog, a dog"),
    ("repetition", DESCRIBE, "red red red red red red"),
    ("repetition", DESCRIBE, "The man on the left is smiling at her and " * 5),
    ("repetition", DESCRIBE, "There is a dog on the mat. " * 4),
    (
        "repetition",
        DESCRIBE,
        "A kitchen. The image is of a kitchen with a table. It is bright. The image is of a kitchen "
        "with a table. It is old. The image is of a kitchen with a table. It is red. The image is of a "
        "kitchen with a table.",
    ),
    ("repetition", DESCRIBE, "The dog is brrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrown"),
    ("repetition", DESCRIBE, "hahahahahahahahahahahahahahahahahahahahahaha"),
    ("repetition", "请描述这张图片。", "图中有狗很漂亮很漂亮很漂亮很漂亮很漂亮很漂亮很漂亮很漂亮"),
    ("refusal", DESCRIBE, "I'm sorry, but I can't assist with that."),
    ("refusal", DESCRIBE, "I’m sorry, I can’t help with that request."),
    ("refusal", DESCRIBE, "Sorry, I cannot fulfill this request."),
    ("refusal", DESCRIBE, "I am unable to view images directly, as I only work with text."),
    ("refusal", DESCRIBE, "Unfortunately, I cannot see the image you are referring to."),
    ("refusal", DESCRIBE, "As an AI language model, I don't have the ability to see images."),
    ("refusal", DESCRIBE, "I'm just a language model and cannot look at pictures."),
    ("refusal", DESCRIBE, "I don't see any image attached to your message. Could you upload it?"),
    ("refusal", DESCRIBE, "No image was provided, so I have to guess."),
    ("refusal", DESCRIBE, "It seems that you have not attached an image."),
    ("refusal", DESCRIBE, "Please upload the image so that I can describe it."),
    ("refusal", DESCRIBE, "I apologize, but I'm not able to provide assistance with identifying anyone."),
    (
        "refusal",
        "Who is in the picture?",
        "I cannot identify real people in images, but I can describe what they wear.",
    ),
    ("refusal", "请描述这张图片。", "很抱歉，我无法查看图片。"),
    ("refusal", "¿Qué hay en la imagen?", "Lo siento, pero no puedo ver la imagen."),
    ("wrong_script", DESCRIBE, "图片中有一只狗躺在红色的垫子上，旁边有一个碗。"),
    ("wrong_script", DESCRIBE, "The image shows 一个红色的汽车停在路边 and 有一个人站着."),
    ("wrong_script", "请描述这张图片。", "The image shows a dog on a red mat, and next to it there is a bowl."),
    ("wrong_script", DESCRIBE, "На картинке собака спит на красном коврике."),
    (
        "wrong_language",
        DESCRIBE,
        "Auf dem Bild ist ein Hund zu sehen, der auf einer roten Matte liegt, und neben der Matte "
        "steht eine Lampe, die nicht brennt, und ein Glas mit Wasser.",
    ),
    (
        "wrong_language",
        "Was ist auf dem Bild zu sehen?",
        "The image shows a dog that lies on a red mat, and next to the mat there is a lamp that is not "
        "on, and a glass of water on the floor.",
    ),
    (
        "wrong_language",
        DESCRIBE,
        "Dans cette image on voit un chien qui dort sur un tapis rouge, et il y a une lampe sur la "
        "table avec des livres et un verre d'eau.",
    ),
    ("cut_off", DESCRIBE, "The image shows a dog lying on a mat next to the"),
    ("cut_off", DESCRIBE, "The image shows a dog lying on a mat, a bowl,"),
    ("cut_off", DESCRIBE, "In the background there are two trees, a bench and"),
)

#: Of these the model was not allowed to write the end.
CUT = "A dog lies on a mat in front of"
